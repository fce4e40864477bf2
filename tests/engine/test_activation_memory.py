"""What is measured on the meta device is what PyTorch keeps for the backward pass, byte by byte."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from lora_trainer.engine.activation_memory import Moment, Pass, measure, meta_copy
from lora_trainer.models.tiny_models import tiny_base
from lora_trainer.trainers.diffusion.base import forget_activations
from lora_trainer.trainers.diffusion.model import DiffusionModel


@functools.cache
def model(kind: Any, checkpointing: bool = False) -> tuple[DiffusionModel, tuple[Tensor, dict[str, Any]]]:
    """A tiny model in float32 and two pictures of 128 px."""
    base = tiny_base(kind)
    if checkpointing:
        forget_activations(base, "everything")
    made = DiffusionModel(kind, base.unet, base.text_encoders, 1).float().train()
    batch: dict[str, Any] = {"timestep": torch.zeros(2, dtype=torch.int64), "size_condition": torch.zeros(2, 6)}
    batch["token_ids"] = tuple(torch.ones(2, 1, 77, dtype=torch.int64) for _ in base.text_encoders)
    return made, (torch.randn(2, 4, 16, 16), batch)


def on_meta(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(on_meta, value))
    return {key: on_meta(each) for key, each in value.items()} if isinstance(value, dict) else value.to("meta")


def really(module: nn.Module, inputs: Any, trained: list[str], half: torch.dtype | None) -> int:
    """The bytes of all storages that PyTorch keeps, besides weights."""
    for name, weight in module.named_parameters():
        weight.requires_grad_(name in trained)
    resident = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in resident:
            kept[storage._cdata] = storage
        return tensor

    autocast = torch.autocast("cpu", half) if half else contextlib.nullcontext()
    with autocast, saved_tensors_hooks(keep, lambda tensor: tensor):
        module(*inputs)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("part", ["unet.", ""])
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_it_is_what_is_kept(kind: str, part: str, checkpointing: bool) -> None:
    module, inputs = model(kind, checkpointing)
    trained = [name for name, _ in module.named_parameters() if name.startswith(part)]
    found = measure(meta_copy(module), on_meta(inputs), trained, checkpointing=checkpointing)
    assert found.activations == really(module, inputs, trained, None)
    assert found.copies == 0
    weights = dict(module.named_parameters())
    assert found.gradients == sum(4 * weights[name].numel() for name in trained)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_autocast_keeps_copies_of_weights_too(checkpointing: bool) -> None:
    module, inputs = model("sd15", checkpointing)
    trained = [name for name, _ in module.named_parameters()]
    found = measure(
        meta_copy(module), on_meta(inputs), trained, half=torch.bfloat16, checkpointing=checkpointing, device_type="cpu"
    )
    kept = found.activations + sum(moment.copies for moment in found.moments)
    assert kept == pytest.approx(really(module, inputs, trained, torch.bfloat16), rel=0.003)  # sums of norms
    halved = sum(
        2 * weight.numel()
        for layer in module.modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
        for weight in layer.parameters()
    )
    assert found.copies == halved
    low = measure(
        meta_copy(copy.deepcopy(module).bfloat16()), on_meta(inputs), trained, half=torch.bfloat16, device_type="cpu"
    )
    assert low.copies == 0


def test_a_card_keeps_norms_in_32_bits() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)).bfloat16()
    trained = ["0.weight", "1.weight", "2.weight"]
    inputs = (torch.zeros(100, 8, device="meta"),)
    card = measure(meta_copy(module), inputs, trained, half=torch.bfloat16)
    processor = measure(meta_copy(module), inputs, trained, half=torch.bfloat16, device_type="cpu")
    assert card.activations - processor.activations == 100 * 8 * 2  # the norm's input
    assert (card.copies, processor.copies) == (2 * 8 * 4, 0)  # its weights


def test_the_module_stays_as_it_is() -> None:
    module, inputs = model("sd15")
    module.requires_grad_(False)
    before = {name: (weight, weight.clone()) for name, weight in module.named_parameters()}
    flags = [getattr(child, "gradient_checkpointing", None) for child in module.modules()]
    copied = meta_copy(module)
    measure(copied, on_meta(inputs), list(before), checkpointing=True)
    for name, weight in module.named_parameters():
        assert weight is before[name][0]
        assert torch.equal(weight, before[name][1])
        assert not weight.requires_grad
    assert flags == [getattr(child, "gradient_checkpointing", None) for child in module.modules()]
    assert all(tensor.is_meta for tensor in (*copied.parameters(), *copied.buffers()))


def test_formats_of_the_copy_are_chosen() -> None:
    copied = meta_copy(nn.Linear(2, 3), lambda name, tensor: torch.float16 if name == "bias" else tensor.dtype)
    assert (copied.weight.dtype, copied.bias.dtype) == (torch.float32, torch.float16)


PASS = Pass([Moment(kept=10, gradients=4, largest=4), Moment(kept=6, again=8, gradients=20, largest=9)], held=3)


@pytest.mark.parametrize(
    ("words", "most"),
    [
        ({}, 16 + 8 + 20),  # the second moment is first
        ({"fused": 1.0}, 16 + 8 + 9),
        ({"fused": 3.0}, 16 + 8 + 27),
        ({"gradients_stay": True}, 24 + 16 + 8),
        ({"share": 0.5}, 8 + 4 + 20),
    ],
)
def test_the_most_at_one_time(words: dict[str, Any], most: int) -> None:
    assert PASS.peak(**words) == most
    assert Pass([Moment(kept=16)], held=3).peak() == 19


class Blocks(nn.Module):
    """A model of checkpointed blocks as diffusers has them."""

    gradient_checkpointing = True

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)) for _ in range(6))
        self.embedding = nn.Embedding(1000, 64)

    def _gradient_checkpointing_func(self, *given: Any) -> Any:
        return checkpoint(*given, use_reentrant=False)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embedding(ids)
        for part in self.parts:
            hidden = self._gradient_checkpointing_func(part, hidden) if self.gradient_checkpointing else part(hidden)
        return F.normalize(hidden, dim=-1)


@contextlib.contextmanager
def watched() -> Iterator[list[int]]:
    """The most bytes alive within, besides those before, as PyTorch's profiler sees them."""
    most: list[int] = []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        yield most
    assert profiler.profiler is not None
    events = [each for each in profiler.profiler.kineto_results.events() if each.name() == "[memory]"]
    now, peak = 0, 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    most.append(peak)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_most_at_one_time_is_what_a_backward_pass_takes(checkpointing: bool, fused: bool) -> None:
    module, ids = Blocks(), torch.zeros(1000, dtype=torch.int64)
    module.gradient_checkpointing = checkpointing
    if fused:
        for weight in module.parameters():
            weight.register_post_accumulate_grad_hook(lambda weight: setattr(weight, "grad", None))
    found = measure(meta_copy(module), (ids.to("meta"),), dict(module.named_parameters()), checkpointing=checkpointing)
    with watched() as most:
        module(ids).sum().backward()
    transient = 4 * 1000 * 64 * 4  # gradients of activations that are on their way
    assert most[0] - transient <= found.peak(fused=float(fused)) <= most[0]
