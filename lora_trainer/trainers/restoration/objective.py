"""What a restoration's step minimises: differences from the original, and the two sides of the discriminator.

Letters: b batch, c channels, h w pixels. Pictures go from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_trainer.config.restoration_loss import Lambdas
from lora_trainer.engine.phase import Batch, Losses
from lora_trainer.losses.multilevel import heads_discriminator_loss, heads_generator_loss, heads_r1, mean_logit
from lora_trainer.losses.pixel import l1_loss, mse_loss
from lora_trainer.losses.restoration_quality import ssim_y_loss
from lora_trainer.models.restoration.backbone import ClipBackbone
from lora_trainer.models.restoration.heads import FeatureHeads
from lora_trainer.trainers.restoration.networks import OneStep

GENERATOR, DISCRIMINATOR = "g", "d"  # the phases
JUDGED = "judged_"  # begins the keys of a batch that are the discriminator's


@dataclass(frozen=True)
class Judge:
    """What tells restored pictures from real ones: the backbone is frozen, the heads learn."""

    backbone: ClipBackbone
    heads: FeatureHeads
    r1_gamma: float = 0.0
    r1_interval: int = 1

    def verdict(self, images: Tensor) -> list[Tensor]:
        """The logits of every head; gradients pass to the pictures."""
        logits: list[Tensor] = self.heads(self.backbone(images))
        return logits


@dataclass(frozen=True)
class RestorationObjective:
    """The losses of both phases; they are logged with their weights, so that they add up. `lpips` takes 0 to 1."""

    networks: OneStep
    lpips: nn.Module | None = None
    judge: Judge | None = None

    def generator_loss(self, module: nn.Module, batch: Batch) -> Losses:
        terms = self.terms(self.output(module, batch), batch)
        total = torch.stack(list(terms.values())).sum(0)
        named = {f"loss/G_{name}": value for name, value in terms.items()}
        return Losses(total, {"loss/G_total": total.detach(), **named})

    def output(self, module: nn.Module, batch: Batch) -> Tensor:
        """(b, 3, h, w) the restored pictures of a batch with "latents" and "hidden"."""
        return self.networks.decoded(self.networks.clean(batch["latents"], batch["hidden"], module))

    def terms(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """(b,) of each loss that counts in this step, by HYPIR's names."""
        weights: Lambdas = batch["lambdas"]
        target = batch["gt"]
        terms: dict[str, Tensor] = {}
        for name, (share, compare) in COMPARED.items():
            if weight := share(weights):
                terms[name] = weight * compare(output, target)
        if weights.lpips:
            assert self.lpips is not None
            terms["lpips"] = weights.lpips * self.lpips(as_shares(output), as_shares(target))
        if weights.gan:
            assert self.judge is not None
            terms["disc"] = weights.gan * heads_generator_loss(self.judge.verdict(output))
        return terms

    def discriminator_loss(self, module: nn.Module, batch: Batch) -> Losses:
        """Real and restored pictures in one pass of the heads, because a module under DDP is called once."""
        assert self.judge is not None
        real = batch[f"{JUDGED}gt"]
        with torch.no_grad():
            latents, hidden = batch[f"{JUDGED}latents"], batch[f"{JUDGED}hidden"]
            fake = self.networks.decoded(self.networks.clean(latents, hidden))
            seen = [each.float().chunk(2) for each in self.judge.backbone(torch.cat([real, fake]))]
        of_real = [each for each, _ in seen]
        if batch["penalised"]:
            for each in of_real:
                each.requires_grad_(True)
        logits = module([torch.cat([each, other]) for each, (_, other) in zip(of_real, seen, strict=True)])
        real_logits, fake_logits = ([each.chunk(2)[side] for each in logits] for side in (0, 1))
        loss = heads_discriminator_loss(real_logits, True) + heads_discriminator_loss(fake_logits, False)
        terms = {
            "loss/D": loss.detach(),
            "loss/D_logits_real": mean_logit(real_logits),
            "loss/D_logits_fake": mean_logit(fake_logits),
        }
        if batch["penalised"]:
            terms["loss/D_r1"] = heads_r1(real_logits, of_real, self.judge.r1_gamma)
            loss = loss + self.judge.r1_interval * terms["loss/D_r1"]
        return Losses(loss, terms)

    def refine_heads(self, micros: Sequence[Batch]) -> None:
        """Before the discriminator's passes of a step."""
        assert self.judge is not None
        self.judge.heads.refine()


def as_shares(image: Tensor) -> Tensor:
    """From -1..1 to 0..1."""
    return (image + 1) / 2


def _ssim(output: Tensor, target: Tensor) -> Tensor:
    return ssim_y_loss(as_shares(output), as_shares(target))


COMPARED: Mapping[str, tuple[Callable[[Lambdas], float], Callable[[Tensor, Tensor], Tensor]]] = {
    "mse": (lambda weights: weights.l2, mse_loss),
    "l1": (lambda weights: weights.l1, l1_loss),
    "ssim": (lambda weights: weights.ssim, _ssim),
}
