"""How much an optimizer remembers, found by letting it take a step on weights of each shape."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.engine.optimizers import Group, make_optimizer

FEW = 2**20  # numbers of a weight that is really allocated

Like = tuple[tuple[int, ...], torch.dtype]  # a weight's shape and format


def state_bytes(name: str, options: Mapping[str, Any], weights: Iterable[Like]) -> int:
    """Bytes of an optimizer's state after its first step. Raises Refusal for options that it does not take."""
    found = Counter((tuple(shape), dtype) for shape, dtype in weights)
    return sum(count * _bytes_of_one(name, options, like) for like, count in found.items())


def _bytes_of_one(name: str, options: Mapping[str, Any], like: Like) -> int:
    """On the meta device, which takes neither memory nor time; those that look at values or ask for memory of their
    own kind get a real weight, which is smaller when it would be large."""
    shape, dtype = like
    if "paged" not in name.casefold():
        try:
            return _stepped(name, options, shape, dtype, "meta")
        except (NotImplementedError, RuntimeError, TypeError, ValueError):
            pass
    numbers = math.prod(shape)
    fewer = (max(1, shape[0] * FEW // numbers), *shape[1:]) if numbers > FEW else shape
    return round(_stepped(name, options, fewer, dtype, "cpu") * numbers / math.prod(fewer))


def _stepped(name: str, options: Mapping[str, Any], shape: tuple[int, ...], dtype: torch.dtype, device: str) -> int:
    weight = nn.Parameter(torch.ones(shape, dtype=dtype, device=device))  # Prodigy remembers less of zeros
    weight.grad = torch.ones_like(weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bitsandbytes has no paged memory for a CPU
        optimizer = make_optimizer(name, [Group("", 1e-4, {"": weight})], options)
        optimizer.step()
    found: dict[int, Tensor] = {}
    _collect(list(optimizer.state.values()), found)
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())


def _collect(value: Any, found: dict[int, Tensor]) -> None:
    """The tensors in it (SOAP keeps lists of them), each once."""
    if torch.is_tensor(value):
        found[id(value)] = value
    elif isinstance(value, Mapping):
        _collect(list(value.values()), found)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _collect(each, found)
