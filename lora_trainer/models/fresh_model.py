"""Parts of a new model, with the random weights that diffusers and transformers begin with, as a function of a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from lora_trainer.draws import draw_key

M = TypeVar("M")  # a model of diffusers or transformers


def initialised(build: Callable[[], M], seed: int, part: str, dtype: torch.dtype) -> M:
    """Build a part, frozen and in eval mode like a loaded one. PyTorch's own generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_key("fresh model", seed, part) & 0x7FFF_FFFF_FFFF_FFFF)
        model: Any = build()
    nn.Module.to(model, dtype=dtype)  # that of diffusers warns of modules that AutoencoderKL does not have
    model.requires_grad_(False).eval()
    built: M = model
    return built
