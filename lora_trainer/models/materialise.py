"""Named tensors become a model's weights, without allocating some that would be overwritten anyway."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.clip_keys import TEXT_MODEL

M = TypeVar("M")  # a model of PyTorch

_LISTED = 3  # how many names a message shows


def materialise(build: Callable[[], M], state: Mapping[str, Tensor], dtype: torch.dtype, place: str) -> M:
    """Build the model and give it exactly these tensors, cast; frozen and in eval mode.

    Text encoders may be named with or without `text_model.`; a linear layer may be stored as a 1x1 convolution and the
    other way round. Raises Refusal, with `place` (file and part), for tensors that are missing, too many or misshapen.
    """
    with init_empty_weights(include_buffers=False):  # buffers that no file holds (position ids) must be real
        built = build()
    model: Any = built
    wanted = {name.removeprefix(TEXT_MODEL): (name, like) for name, like in model.state_dict().items()}
    found = {name.removeprefix(TEXT_MODEL): tensor for name, tensor in state.items()}
    _refuse_differences(place, {name: like for name, (_, like) in wanted.items()}, found)
    cast = {full: _own(found[name].reshape(like.shape).to(dtype)) for name, (full, like) in wanted.items()}
    model.load_state_dict(cast, strict=True, assign=True)
    if left := [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]:
        raise RuntimeError(f"{place}: {left[0]} was left without a value")
    model.requires_grad_(False).eval()
    return built


def _own(tensor: Tensor) -> Tensor:
    """A part of a larger tensor as a tensor of its own, so that it neither keeps the whole alive nor shares with it."""
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole and tensor.is_contiguous() else tensor.contiguous().clone()


def _refuse_differences(place: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    problems = []
    if missing := sorted(wanted.keys() - found.keys()):
        problems.append(f"{place}: {_some(missing)} missing; the checkpoint is incomplete or of another architecture")
    if unexpected := sorted(found.keys() - wanted.keys()):
        problems.append(f"{place}: {_some(unexpected)} unknown; the checkpoint is of another architecture")
    for name in sorted(wanted.keys() & found.keys()):
        have, need = tuple(found[name].shape), tuple(wanted[name].shape)
        if _without_kernel(have) != _without_kernel(need):
            problems.append(f"{place}: {name} has the shape {have} instead of {need}; give another base model")
            break  # the others differ for the same reason
    if problems:
        raise Refusal(*problems)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more are" if len(names) > _LISTED else " are" if len(names) > 1 else " is"
    return ", ".join(names[:_LISTED]) + more


def _without_kernel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(out, in, 1, 1) and (out, in) hold the same numbers."""
    return shape[:2] if shape[2:] == (1, 1) else shape
