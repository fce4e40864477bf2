"""One training step: micro-batches, loss scaling, the guard against NaN, clipping, and the optimizer of each phase."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lora_trainer.engine.optimizers import set_rates
from lora_trainer.engine.phase import Batch, Losses, Phase
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes

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
    """Runs the phases of a step and counts, for each, the optimizer steps that were applied."""

    def __init__(self, phases: Sequence[Phase], processes: Processes, precision: Precision) -> None:
        self.phases = phases
        self.processes = processes
        self.precision = precision
        self.scaler = precision.scaler()
        self.applied = {phase.name: 0 for phase in phases}
        self._modules = {phase.name: processes.wrap(phase.module, phase.leaves_weights_out) for phase in phases}
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
            with phase.collecting_gradients(self.applied[phase.name]):
                sums = self._gradients(phase, micros, collected)
            norm, phase_bad = self._update(phase, sums["loss"])
            bad = torch.maximum(bad, phase_bad)
            prefix = "" if phase is self.phases[0] else f"{phase.name}/"
            values |= {f"{prefix}{name}": value for name, value in sums.items()} | {f"{prefix}grad_norm": norm}
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
                (self.scaler.scale(scaled) if self.scaler is not None else scaled).backward()
            for name, value in {"loss": losses.per_sample, **losses.terms}.items():
                part = (value.detach().float() * micro["weights"]).sum() / total
                sums[name] = sums[name] + part if name in sums else part
            collected.append((micro["names"], losses.per_sample.detach()))
        together = self.processes.sum_(torch.stack(list(sums.values())))
        return dict(zip(sums, together.unbind(), strict=True))

    def _update(self, phase: Phase, loss: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The optimizer's step, unless something is not finite: no optimizer ever sees a NaN. Gives (norm, bad)."""
        optimizer = phase.optimizer
        weights = list(phase.weights.values())
        done = self.applied[phase.name]
        set_rates(optimizer, lambda group: phase.factor(group, done), done)
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
            optimizer.grad_scale, optimizer.found_inf = None, bad  # type: ignore[attr-defined]
            optimizer.step()
            self.applied[phase.name] += 1
        elif not bool(bad):
            optimizer.step()
            self.applied[phase.name] += 1
        optimizer.zero_grad(set_to_none=True)
        return norm, bad

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
