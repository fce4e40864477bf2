"""Which attention kernel the UNet runs: the result is the same, speed and memory are not."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

AttentionChoice = Literal["xformers", "sdpa", "none"]


def use_attention(unet: Any, choice: AttentionChoice, device: torch.device) -> str | None:
    """Set the kernel of a diffusers UNet; returns a sentence for the person where it is not the one asked for.

    "none" is the formula written out, with the whole table of weights in memory.
    """
    if choice == "none":
        unet.set_attn_processor(AttnProcessor())
        return None
    unet.set_attn_processor(AttnProcessor2_0())  # type: ignore[no-untyped-call]
    return _use_xformers(unet, device) if choice == "xformers" else None


def _use_xformers(unet: Any, device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"xformers has no attention for {device.type}; PyTorch's own (sdpa) is used instead"
    if find_spec("xformers") is None:
        return "xformers is not installed; PyTorch's own attention (sdpa) is used instead"
    try:
        unet.enable_xformers_memory_efficient_attention()
    except (ImportError, NotImplementedError, ValueError) as error:  # built for another PyTorch or another card
        unet.set_attn_processor(AttnProcessor2_0())  # type: ignore[no-untyped-call]
        return f"xformers does not work here ({error}); PyTorch's own attention (sdpa) is used instead"
    return None
