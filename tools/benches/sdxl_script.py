"""A step of an SDXL training as the well-known scripts write it, for the benches to measure the trainers against.

diffusers and accelerate: prepared model and optimizer, autocast, text encoders in every step, the loss read in every
step, and an average that is brought forward weight by weight. Latents are cached, as they can be there too.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from lora_trainer.engine.phase import Batch, Data
from tools.benches.lines import Machine
from tools.benches.measuring import Course, placed

TIMESTEPS, LONGEST_GRADIENT, DECAY = 1000, 1.0, 0.9999


def accelerator_of(machine: Machine) -> Accelerator:
    """A script's own, of which there is one in a process, and the trainer's says no to autocast."""
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=machine.precision.name)


@dataclass
class Script:
    """Prepared models; `weights` are trained, and `averages` follow them where there are any."""

    accelerator: Accelerator
    unet: Any
    encoders: Sequence[Any]
    scheduler: Any  # a DDPMScheduler
    weights: Sequence[Tensor]
    optimizer: Any
    trains_text: bool
    averages: list[Tensor] = field(default_factory=list)

    def loss(self, micro: Batch, noise: Tensor, timesteps: Tensor) -> Tensor:
        noisy = self.scheduler.add_noise(micro["latents"], noise, timesteps)
        with self.accelerator.autocast():
            with contextlib.nullcontext() if self.trains_text else torch.no_grad():
                text, pooled = self._encoded(micro)
            extra = {"text_embeds": pooled, "time_ids": micro["size_condition"]}
            prediction = self.unet(noisy, timesteps, text, added_cond_kwargs=extra, return_dict=False)[0]
            return F.mse_loss(prediction.float(), noise.float())

    def _encoded(self, micro: Batch) -> tuple[Tensor, Tensor | None]:
        hidden, pooled = [], None
        for number, encoder in enumerate(self.encoders):
            found = encoder(micro["token_ids"][number][:, 0], output_hidden_states=True)
            hidden.append(found.hidden_states[-2])
            pooled = found[0]
        return torch.cat(hidden, dim=-1), pooled

    def step(self, micro: Batch, noise: Tensor, timesteps: Tensor) -> dict[str, Any]:
        """The loss as a number, and the norm of the gradient as it is."""
        loss = self.loss(micro, noise, timesteps)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.weights, LONGEST_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad()
        for average, weight in zip(self.averages, self.weights, strict=bool(self.averages)):
            average.mul_(DECAY).add_(weight.detach(), alpha=1 - DECAY)
        return {"loss": loss.item(), "grad_norm": norm}

    def course(self, data: Data, device: torch.device, agrees_in: Sequence[str]) -> Course:
        """The first step takes the noise and the timesteps of its batch, as the trainer does; later ones their own."""
        numbers = itertools.count()

        def prepared() -> Batch:
            (micro,) = data(next(numbers))
            return placed(micro, device)

        def step(micro: Batch) -> object:
            latents = micro["latents"]
            timesteps = torch.randint(0, TIMESTEPS, (len(latents),), device=device)
            return self.step(micro, torch.randn_like(latents), timesteps)

        micro = prepared()
        values = self.step(micro, micro["noise"], micro["timestep"])
        return Course(prepared, step, {key: float(values[key]) for key in agrees_in})
