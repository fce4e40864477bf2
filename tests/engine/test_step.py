"""One step: exact means, clipping, and no optimizer ever sees a NaN."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.engine.optimizers import Group, make_optimizer
from lora_trainer.engine.phase import Batch, Losses, Phase, leading
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.step import MEMBERS, NonFiniteError, Stepper

INPUTS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def loss(module: nn.Module, batch: Batch) -> Losses:
    error = module(batch["inputs"]) - 1
    return Losses(error.square().mean(1), {"largest": error.abs().amax(1)})


def micro(rows: list[int], total: int, **changes: Any) -> Batch:
    inputs = INPUTS[rows].clone()
    names = [f"picture {row}" for row in rows]
    return {"inputs": inputs, "names": names, "weights": torch.ones(len(rows)), "total": total, **changes}


def phase(name: str = "only", optimizer: str = "adamw", every: int = 1, norm: float = 0.0, **options: Any) -> Phase:
    layer = nn.Linear(5, 3)
    nn.init.constant_(layer.weight, 0.1)
    nn.init.zeros_(layer.bias)
    weights = dict(layer.named_parameters())
    built = make_optimizer(optimizer, [Group(name, 0.1, weights)], options)
    return Phase(name, layer, weights, built, loss, lambda step: 1.0, norm, lambda step: step % every == 0)


def stepper(*phases: Phase, precision: Precision | None = None) -> Stepper:
    return Stepper(phases, Processes(), precision or Precision("no", "cpu"))


def copied(part: Phase) -> list[torch.Tensor]:
    state = [value for each in part.optimizer.state.values() for value in each.values() if torch.is_tensor(value)]
    return [tensor.detach().clone() for tensor in (*part.weights.values(), *state)]


def test_unequal_passes_are_one_batch() -> None:
    whole, parted = phase(), phase()
    first = stepper(whole).run(0, [micro([0, 1, 2, 3, 4, 5], 6)])
    second = stepper(parted).run(0, [micro([0], 6), micro([1, 2, 3], 6), micro([4, 5], 6)])
    for name in ("loss", "largest", "grad_norm"):
        assert second.values[name] == pytest.approx(float(first.values[name]), rel=1e-6)
    for ours, theirs in zip(whole.weights.values(), parted.weights.values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_part_counts_its_members_over_unequal_passes() -> None:
    def in_parts(module: nn.Module, batch: Batch) -> Losses:
        found = loss(module, batch)
        return Losses(found.per_sample, parts={"band/first": (found.per_sample, (batch["inputs"][:, 0] < 0).float())})

    part = replace(phase(), loss=in_parts)
    values = stepper(part).run(0, [micro([0, 1, 2], 4), micro([3], 4)]).values
    members = values[f"band/first{MEMBERS}"]
    assert 0 < float(members) < 1
    whole = stepper(replace(phase(), loss=in_parts)).run(0, [micro([0, 1, 2, 3], 4)]).values
    torch.testing.assert_close(values["band/first"], whole["band/first"])
    torch.testing.assert_close(members, whole[f"band/first{MEMBERS}"])


def test_a_filler_counts_nothing() -> None:
    with_filler, without = phase(), phase()
    filler = micro([5], 2, weights=torch.zeros(1))
    first = stepper(with_filler).run(0, [micro([0, 1], 2), filler])
    second = stepper(without).run(0, [micro([0, 1], 2)])
    assert float(first.values["loss"]) == pytest.approx(float(second.values["loss"]), rel=1e-6)
    torch.testing.assert_close(with_filler.weights["weight"], without.weights["weight"])


@pytest.mark.parametrize(("optimizer", "applied"), [("adamw", 2), ("lion", 1), ("adamw8bit", 1)])
def test_a_nan_touches_neither_weights_nor_state_and_names_the_picture(optimizer: str, applied: int) -> None:
    part = phase(optimizer=optimizer)
    runner = stepper(part)
    assert float(runner.run(0, [micro([0, 1, 2], 3)]).values["bad"]) == 0
    before = copied(part)
    broken = micro([3, 4], 3)
    broken["inputs"][1, 2] = float("nan")
    result = runner.run(1, [micro([0], 3), broken])
    assert float(result.values["bad"]) == 1
    assert result.suspects() == ["picture 4"]
    after = copied(part)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert runner.applied["only"] == applied  # the fused AdamW learns of it a step later; the run ends then
    assert float(runner.run(2, [micro([0, 1, 2], 3)]).values["bad"]) == 0
    assert not torch.equal(part.weights["weight"], before[0])


def test_long_gradients_are_shortened_and_logged_as_they_were() -> None:
    free, clipped = phase(optimizer="lion"), phase(norm=1e-3, optimizer="lion")
    norms = [float(stepper(part).run(0, [micro([0, 1], 2)]).values["grad_norm"]) for part in (free, clipped)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    assert norms[0] > 1e-2


def test_phases_have_their_own_turns_and_weights() -> None:
    first, second = phase("G"), phase("D", every=2)
    runner = stepper(first, second)
    for step in range(3):
        result = runner.run(step, [micro([0, 1], 2)])
        assert ("D/loss" in result.values) == (step % 2 == 0)
        assert "loss" in result.values
    assert runner.applied == {"G": 3, "D": 2}
    assert not any(weight.requires_grad for part in (first, second) for weight in part.weights.values())


class Scaled(Precision):
    """fp16's scaler on a CPU, where the products stay in fp32."""

    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)


def test_phases_may_share_a_module_and_its_optimizer() -> None:
    """Here the loss twice in a step is two steps of one optimizer; each phase sees all its passes before the first."""
    shared, alone = phase("often"), phase()
    seen: list[int] = []
    seldom = replace(
        shared, name="seldom", due=lambda step: step % 2 == 0, begin=lambda micros: seen.append(len(micros))
    )
    both = stepper(shared, seldom)
    assert leading([shared, seldom, alone]) == [shared, alone]
    passes = [micro([0, 1], 4), micro([2, 3], 4)]
    for step in range(3):
        both.run(step, passes)
    runner = stepper(alone)
    for step in range(5):
        runner.run(step, passes)
    assert (both.applied, seen) == ({"often": 3, "seldom": 2}, [2, 2])
    for ours, theirs in zip(shared.weights.values(), alone.weights.values(), strict=True):
        assert torch.equal(ours, theirs)


def test_an_overflow_of_the_scale_is_skipped_and_the_schedule_waits() -> None:
    plain, part = phase(), phase()
    runner = stepper(part, precision=Scaled("no", "cpu"))
    assert runner.scaler is not None
    runner.scaler.scale(torch.zeros(1))  # so that it exists
    runner.scaler._scale.fill_(torch.finfo(torch.float32).max)  # type: ignore[union-attr]
    before = part.weights["weight"].clone()
    steep = micro([0, 1], 2)
    steep["inputs"] *= 100
    result = runner.run(0, [steep])
    assert float(result.values["bad"]) == 0
    assert runner.applied["only"] == 0
    assert torch.equal(part.weights["weight"], before)
    runner.scaler._scale.fill_(2.0**10)  # type: ignore[union-attr]
    runner.run(1, [micro([0, 1], 2)])
    stepper(plain).run(0, [micro([0, 1], 2)])
    assert runner.applied["only"] == 1
    torch.testing.assert_close(part.weights["weight"], plain.weights["weight"])


def test_a_loss_that_is_nan_is_bad_in_fp16_too() -> None:
    part = phase()
    broken = micro([0, 1], 2)
    broken["inputs"][0] = float("inf")
    result = stepper(part, precision=Scaled("no", "cpu")).run(0, [broken])
    assert float(result.values["bad"]) == 1
    assert result.suspects() == ["picture 0"]


def test_overflow_at_the_smallest_scale_is_a_divergence() -> None:
    part = phase()

    def steep(module: nn.Module, batch: Batch) -> Losses:
        zero = module(batch["inputs"]).sum(1) * 0
        return Losses(zero.clamp(min=0).add(1e-30).sqrt() * 0 + zero.sub(zero.detach()).abs().sqrt())

    runner = stepper(
        Phase(part.name, part.module, part.weights, part.optimizer, steep, part.schedule),
        precision=Scaled("no", "cpu"),
    )
    assert runner.scaler is not None
    runner.scaler.scale(torch.zeros(1))
    runner.scaler._scale.fill_(2.0**-12)  # type: ignore[union-attr]
    with pytest.raises(NonFiniteError, match="the training has diverged"):
        runner.run(0, [micro([0, 1], 2)])
