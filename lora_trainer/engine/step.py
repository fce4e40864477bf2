"""One training step: micro-batches, loss scaling, the guard against NaN, clipping, and the optimizer of each phase."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from lora_trainer.engine.fused_step import FusedStep, fused_problems
from lora_trainer.engine.optimizers import set_rates
from lora_trainer.engine.phase import Batch, Losses, Phase
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.stochastic_rounding import rounding_problems, step_rounded
from lora_trainer.errors import Refusal

MEMBERS = " members"  # behind the name of a part: how large it is
SMALLEST_SCALE = 2.0**-10  # an fp16 run whose gradients overflow even at this scale has diverged


class NonFiniteError(Exception):
    """NaN or Inf in a loss, in the gradients or in the weights; the message is for the person."""


@dataclass(frozen=True)
class StepResult:
    """The numbers of a step, still on the device, and what to ask when they are not finite."""

    values: dict[str, torch.Tensor]  # scalars; "bad" is 1 when the step was refused
    pictures: int
    suspects: Callable[[], list[str]]  # to be called by all processes


class Stepper:
    """Runs the phases of a step and counts, for each, the optimizer steps that were applied.

    There is one for a phase: weights of fused phases get hooks. Raises Refusal where a phase's ways of stepping do not
    go with the processes or the number format.
    """

    def __init__(self, phases: Sequence[Phase], processes: Processes, precision: Precision) -> None:
        if problems := [problem for phase in phases for problem in _problems(phase, processes, precision)]:
            raise Refusal(*problems)
        self.phases = phases
        self.processes = processes
        self.precision = precision
        self.scaler = precision.scaler()
        self.applied = {phase.name: 0 for phase in phases}
        self._modules = _wrapped(phases, processes)
        self._fused = {
            phase.name: FusedStep(phase.weights, phase.optimizer, phase.rounding_seed)
            for phase in phases
            if phase.fused
        }
        for phase in phases:  # only after the wrapping: see Processes.wrap
            for weight in phase.weights.values():
                weight.requires_grad_(False)

    def run(self, step: int, micros: Sequence[Batch]) -> StepResult:
        """All phases that are due in this step, over its micro-batches."""
        values: dict[str, torch.Tensor] = {}
        bad = torch.zeros((), device=self.processes.device)
        collected: list[tuple[Sequence[str], torch.Tensor]] = []
        for phase in self.phases:
            if not phase.due(step):
                continue
            done = self.applied[phase.name]
            set_rates(phase.optimizer, partial(phase.factor, step=done), done)
            with phase.collecting_gradients(done):
                phase.begin(micros)
                sums = self._gradients(phase, micros, collected)
            norm, phase_bad = self._finished(phase) if phase.fused else self._update(phase, sums["loss"])
            bad = torch.maximum(bad, phase_bad)
            prefix = "" if phase is self.phases[0] else f"{phase.name}/"
            found = {**sums, "grad_norm": norm}
            values |= {name if "/" in name else f"{prefix}{name}": value for name, value in found.items()}
        if self.scaler is not None:
            self.scaler.update()
        values["bad"] = bad
        return StepResult(values, int(micros[0]["total"]), lambda: self._suspects(collected))

    def _gradients(
        self, phase: Phase, micros: Sequence[Batch], collected: list[tuple[Sequence[str], torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """Backward over the micro-batches, and the step's mean losses over all processes.

        A loss is per sample, so the mean over `total` pictures is exact however unequally they are shared out; DDP
        averages over the processes, hence the factor `world`.
        """
        module = self._modules[phase.name]
        fused = self._fused.get(phase.name)
        if fused and len(micros) > 1:
            raise Refusal(*fused_problems(len(micros), 0.0, 1, self.precision.name))
        total = float(micros[0]["total"])
        sums: dict[str, torch.Tensor] = {}
        for index, micro in enumerate(micros):
            last = index == len(micros) - 1
            # two processes without the last: gradients are exchanged once a step
            wait = contextlib.nullcontext() if last else self.processes.accelerator.no_sync(module)
            with wait:
                with self.precision.autocast():
                    losses: Losses = phase.loss(module, micro)
                weighted = (losses.per_sample.float() * micro["weights"]).sum()
                scaled = weighted * (self.processes.world / total)
                if fused:
                    fused.begin(self.applied[phase.name], scaled)
                (self.scaler.scale(scaled) if self.scaler is not None else scaled).backward()
            for name, value in _logged(losses).items():
                share = (value.detach().float() * micro["weights"]).sum() / total
                sums[name] = sums[name] + share if name in sums else share
            collected.append((micro["names"], losses.per_sample.detach()))
        together = self.processes.sum_(torch.stack(list(sums.values())))
        return dict(zip(sums, together.unbind(), strict=True))

    def _finished(self, phase: Phase) -> tuple[torch.Tensor, torch.Tensor]:
        """What `_update` gives, of a phase whose weights were updated in the backward pass."""
        self.applied[phase.name] += 1
        return self._fused[phase.name].finish()

    def _update(self, phase: Phase, loss: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The optimizer's step, unless something is not finite: no optimizer ever sees a NaN. Gives (norm, bad)."""
        optimizer = phase.optimizer
        weights = list(phase.weights.values())
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        bad = 1.0 - (norm.isfinite() & loss.isfinite()).float()
        if phase.max_grad_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(weights, phase.max_grad_norm, norm)
        if self.scaler is not None:
            bad = self._scaled_step(phase, norm, loss)
        elif getattr(optimizer, "_step_supports_amp_scaling", False):
            # PyTorch's fused optimizers skip on the device; the host learns of it a step later
            self._step(phase, bad)
        elif not bool(bad):
            self._step(phase)
        optimizer.zero_grad(set_to_none=True)
        return norm, bad

    def _step(self, phase: Phase, found_inf: torch.Tensor | None = None) -> None:
        """The optimizer's, which skips by itself where `found_inf` says so."""
        optimizer, done = phase.optimizer, self.applied[phase.name]
        if phase.rounding_seed is not None:
            step_rounded(optimizer, phase.weights, phase.rounding_seed, done, found_inf)
        else:
            if found_inf is not None:
                optimizer.grad_scale, optimizer.found_inf = None, found_inf  # type: ignore[attr-defined]
            optimizer.step()
        self.applied[phase.name] += 1

    def _scaled_step(self, phase: Phase, norm: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        """fp16: gradients that overflow at the current scale skip the step and halve the scale; that is no failure.

        The schedule must not advance then, so the flags are read here, once a step.
        """
        assert self.scaler is not None
        grads_ok, loss_ok = torch.stack([norm.isfinite(), loss.isfinite()]).tolist()
        if grads_ok and loss_ok:
            self.scaler.step(phase.optimizer)
            self.applied[phase.name] += 1
        elif loss_ok and self.scaler.get_scale() < SMALLEST_SCALE:
            raise NonFiniteError(
                "the gradients overflow in fp16 however small they are scaled: the training has diverged. "
                'Lower the learning rate, or set "mixed_precision": "bf16" or "no"'
            )
        return torch.tensor(0.0 if loss_ok else 1.0, device=norm.device)

    def _suspects(self, collected: Sequence[tuple[Sequence[str], torch.Tensor]]) -> list[str]:
        """The pictures whose own loss is not finite; all of the step's when the fault lies in the gradients alone.

        They may all be another process's, so what this one found decides nothing by itself.
        """
        found = [
            name
            for names, losses in collected
            for name, finite in zip(names, losses.isfinite().tolist(), strict=True)
            if not finite
        ]
        return self.processes.gather(found) or self.processes.gather([name for names, _ in collected for name in names])


def _logged(losses: Losses) -> dict[str, torch.Tensor]:
    """Each (b,). A part is its values where they are members, and beside them the members, to be divided by."""
    found = {"loss": losses.per_sample, **losses.terms}
    for name, (values, members) in losses.parts.items():
        found |= {name: values.detach() * members, f"{name}{MEMBERS}": members}
    return found


def _wrapped(phases: Sequence[Phase], processes: Processes) -> dict[str, torch.nn.Module]:
    """The module of each phase under DDP, once for all phases that share it: two would exchange gradients twice."""
    wrapped: dict[torch.nn.Module, torch.nn.Module] = {}
    for phase in phases:
        if phase.module not in wrapped:
            leaves_out = any(other.leaves_weights_out for other in phases if other.module is phase.module)
            wrapped[phase.module] = processes.wrap(phase.module, leaves_out)
    return {phase.name: wrapped[phase.module] for phase in phases}


def _problems(phase: Phase, processes: Processes, precision: Precision) -> list[str]:
    """Why a phase cannot step as it says."""
    found = fused_problems(1, phase.max_grad_norm, processes.world, precision.name) if phase.fused else []
    if phase.rounding_seed is not None:
        found += rounding_problems(phase.optimizer, precision.name)
    return [f"{phase.name}: {problem}" for problem in found]
