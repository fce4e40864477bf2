"""What each phase of a GAN's step minimises: the generator, path length, the discriminator, and R1.

b images of a pass. Everything that would couple the images of different passes is summed over the whole batch first,
so that a batch does the same in however many passes and processes it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.engine.phase import Batch, Losses
from lora_trainer.losses.gan import (
    PATH_LENGTH_DECAY,
    discriminator_logistic,
    generator_logistic,
    path_lengths,
    r1_penalty,
)
from lora_trainer.models.gan.running_statistics import collected_statistics
from lora_trainer.trainers.gan.batches import DISCRIMINATOR, GENERATOR, GRADIENT_PENALTY, PATH_LENGTH
from lora_trainer.trainers.gan.painting import Brush, Eye, Painter, normal_rows
from lora_trainer.trainers.gan.statistics import Tally

FAKE_SCORES, FAKE_SIGNS = "Loss/scores/fake", "Loss/signs/fake"
REAL_SCORES, REAL_SIGNS = "Loss/scores/real", "Loss/signs/real"
LOSS_NAMES = (
    FAKE_SCORES, FAKE_SIGNS, REAL_SCORES, REAL_SIGNS,
    "Loss/G/loss", "Loss/G/reg", "Loss/pl_penalty", "Loss/D/loss", "Loss/D/reg", "Loss/r1_penalty", "Loss/r2_penalty",
)  # fmt: skip
SQUARES = 2.0  # the gamma with which R1 is the plain sum of squares


class PathMean:
    """The running mean of path lengths, and that of the batch which is being computed."""

    def __init__(self, device: torch.device) -> None:
        self.value = torch.zeros((), device=device)
        self.of_batch: Tensor | None = None

    def settle(self) -> None:
        """Let it follow the batch, if there was one."""
        if self.of_batch is not None:
            self.value = torch.lerp(self.value, self.of_batch, PATH_LENGTH_DECAY)
            self.of_batch = None

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"].to(self.value.device)


@dataclass
class Contest:
    """Both networks, and what their losses need beside them."""

    painter: Painter
    discriminator: nn.Module
    brush: Brush
    eye: Eye
    tally: Tally
    path_mean: PathMean
    gamma: Callable[[int], float]
    path_length_weight: float
    lazy: dict[str, int]  # by the phase, every how many steps it takes part: its loss counts for as many
    sum_over_processes: Callable[[Tensor], Tensor]

    # -- the generator ----------------------------------------------------------------------------------------------

    def generator_loss(self, module: nn.Module, batch: Batch) -> Losses:
        """softplus(-D(G(z)))."""
        images, _ = self.brush.paint(module, batch, GENERATOR)
        logits = self.eye.look(self.discriminator, images, batch[f"{GENERATOR}/labels"], batch, "G fake")
        self._heard_fake(logits)
        losses = generator_logistic(logits)
        self.tally.add("Loss/G/loss", losses)
        return Losses(losses)

    def relativistic_generator_loss(self, module: nn.Module, batch: Batch) -> Losses:
        """softplus(-(D(G(z)) - D(x)))."""
        images, _ = self.brush.paint(module, batch, GENERATOR)
        fake = self.eye.look(self.discriminator, images, batch[f"{GENERATOR}/labels"], batch, "G fake")
        with torch.no_grad():
            real = self.eye.look(self.discriminator, batch["images"], batch["labels"], batch, "G real")
        self._heard_fake(fake)
        losses = generator_logistic(fake - real)
        self.tally.add("Loss/G/loss", losses)
        return Losses(losses)

    # -- path length ------------------------------------------------------------------------------------------------

    def find_path_mean(self, micros: Sequence[Batch]) -> None:
        """Before the passes of path length: the batch's mean. Of a single pass it is found on the way."""
        if len(micros) == 1:
            return
        found = [self._path_lengths(self.painter, micro)[0].detach() for micro in micros if self._measured(micro)]
        self._note_path_mean(torch.cat(found) if found else self.path_mean.value.new_zeros(0))

    def path_length_loss(self, module: nn.Module, batch: Batch) -> Losses:
        """The squared distance of half of the batch's path lengths from their running mean, which moves with them.

        The mean over the batch is a number here, and its part in the gradient is written out.
        """
        measured = self._measured(batch)
        lengths, images = self._path_lengths(module, batch)
        if self.path_mean.of_batch is None:
            self._note_path_mean(lengths[:measured].detach())
        mean, decay = self.path_mean.of_batch, PATH_LENGTH_DECAY
        assert mean is not None
        moved = torch.lerp(self.path_mean.value, mean, decay)
        penalties = (lengths.detach() - moved).square()
        pulled = (lengths - (moved + decay * (mean - moved))).square()
        penalties = penalties + (pulled - pulled.detach())
        self.tally.add("Loss/pl_penalty", penalties[:measured])
        self.tally.add("Loss/G/reg", penalties[:measured] * self.path_length_weight)
        share = batch["total"] / _measured_of(batch["total"])  # the engine takes the mean over all images
        weight = self.path_length_weight * self.lazy[PATH_LENGTH] * share
        losses = penalties.new_zeros(len(batch["positions"]))
        losses[:measured] = penalties[:measured] * weight
        reached = (
            images.flatten(1)[:, 0].sum() * 0
        )  # the last bias moves no length, and must have a gradient all the same
        return Losses(losses + reached)

    def _measured(self, batch: Batch) -> int:
        """How many of a pass's images are measured: those in the first half of the whole batch."""
        return sum(position < _measured_of(batch["total"]) for position in batch["positions"])

    def _path_lengths(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """At least of one image, because every pass must reach every weight."""
        count = max(1, self._measured(batch))
        images, ws = self.brush.paint(module, batch, PATH_LENGTH, first=count)
        stream = (self.brush.seed, batch["step"], PATH_LENGTH, "directions")
        directions = normal_rows(stream, batch["positions"][:count], images.shape[1:], images.device)
        return path_lengths(images, ws, directions), images

    def _note_path_mean(self, lengths: Tensor) -> None:
        sums = torch.stack([lengths.sum(), torch.full_like(lengths.sum(), len(lengths))])
        total, count = self.sum_over_processes(sums).unbind()
        self.path_mean.of_batch = total / count

    # -- the discriminator ------------------------------------------------------------------------------------------

    def paint_fakes(self, micros: Sequence[Batch]) -> None:
        """Before the discriminator's passes: their fakes, of which the generator keeps its running means."""
        with torch.no_grad(), collected_statistics(self.painter, self.sum_over_processes):
            for micro in micros:
                micro["fakes"], _ = self.brush.paint(self.painter, micro, DISCRIMINATOR, update_emas=True)

    def discriminator_loss(self, module: nn.Module, batch: Batch) -> Losses:
        """softplus(D(G(z))) + softplus(-D(x))."""
        fake, real = self._seen(module, batch, batch["fakes"], batch["images"])
        false, true = discriminator_logistic(fake, is_real=False), discriminator_logistic(real, is_real=True)
        self.tally.add("Loss/D/loss", false + true)
        return Losses(false + true, {"fake": false, "real": true})

    def relativistic_discriminator_loss(self, module: nn.Module, batch: Batch) -> Losses:
        """softplus(-(D(x) - D(G(z)))) with R1 and R2 in every step (Huang et al. 2024)."""
        fakes, images = (batch[name].detach().requires_grad_(True) for name in ("fakes", "images"))
        fake, real = self._seen(module, batch, fakes, images)
        losses = discriminator_logistic(real - fake, is_real=True)
        r1, r2 = r1_penalty(real, images, SQUARES), r1_penalty(fake, fakes, SQUARES)
        weight = self.gamma(batch["step"]) / 2
        self.tally.add("Loss/D/loss", losses)
        self.tally.add("Loss/r1_penalty", r1)
        self.tally.add("Loss/r2_penalty", r2)
        self.tally.add("Loss/D/reg", (r1 + r2) * weight)
        return Losses(losses + (r1 + r2) * weight, {"logistic": losses, "r1": r1 * weight, "r2": r2 * weight})

    def gradient_penalty(self, module: nn.Module, batch: Batch) -> Losses:
        """R1, through blur and augmentation."""
        images = batch["images"].detach().requires_grad_(True)
        logits = self.eye.look(module, images, batch["labels"], batch, "D_reg real")
        self._heard_real(logits)
        squares = r1_penalty(logits, images, SQUARES)
        penalty = squares * (self.gamma(batch["step"]) / 2)
        self.tally.add("Loss/r1_penalty", squares)
        self.tally.add("Loss/D/reg", penalty)
        reached = logits[:, 0] * 0  # the last bias moves no gradient, and must have one of its own
        return Losses((penalty + reached) * self.lazy[GRADIENT_PENALTY])

    def _seen(self, module: nn.Module, batch: Batch, fakes: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of fakes and of real images; apart, because a discriminator compares the images of a pass."""
        fake = self.eye.look(module, fakes, batch[f"{DISCRIMINATOR}/labels"], batch, "D fake")
        real = self.eye.look(module, images, batch["labels"], batch, "D real")
        self._heard_fake(fake)
        self._heard_real(real)
        return fake, real

    # -- what is heard of them --------------------------------------------------------------------------------------

    def _heard_fake(self, logits: Tensor) -> None:
        self.tally.add(FAKE_SCORES, logits)
        self.tally.add(FAKE_SIGNS, logits.detach().sign())

    def _heard_real(self, logits: Tensor) -> None:
        self.tally.add(REAL_SCORES, logits)
        self.tally.add(REAL_SIGNS, logits.detach().sign())


def _measured_of(total: int) -> int:
    return max(1, total // 2)
