"""Losses are computed in float32 at least, also where the networks run in half precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def full_precision(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a loss: half-precision tensors that it is given arrive as float32, and autocast is off within.

    float64 stays float64. At least one positional argument is a tensor.
    """

    @wraps(function)
    def computed(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        device = next(value.device.type for value in args if isinstance(value, Tensor))
        raised = {name: _raised(value) for name, value in kwargs.items()}
        with torch.autocast(device, enabled=False):
            return function(*(_raised(value) for value in args), **raised)  # type: ignore[arg-type]

    return computed


def _raised(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16) else value
