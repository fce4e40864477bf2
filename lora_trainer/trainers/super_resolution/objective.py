"""What a super-resolution step minimises: the weighted image losses and the GAN's two sides.

Letters: b batch, h w pixels of the high resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.config.kinds import Component
from lora_trainer.data.resize import bicubic
from lora_trainer.engine.phase import Batch, Losses
from lora_trainer.losses.adversarial import discriminator_loss, generator_loss
from lora_trainer.losses.image_losses import LossInputs, loss_named

GAN_TERM = "gan"


@dataclass(frozen=True)
class Weighted:
    """An image loss and its share. A negative weight pushes the result away from a plain enlargement of the input."""

    loss: Callable[[LossInputs], Mapping[str, Tensor]]
    weight: float
    label: str  # a prefix of its terms in the log where the same loss is used twice, else ""


@dataclass(frozen=True)
class Gan:
    """The discriminator's side of the losses."""

    discriminator: nn.Module
    kind: str
    weight: float
    real_label: float = 1.0
    fake_label: float = 0.0


@dataclass(frozen=True)
class Objective:
    """The losses of both phases. Terms are logged with their weights, so that they add up to the loss."""

    losses: Sequence[Weighted]
    gan: Gan | None = None
    adversary: AdaptiveAdversary | None = None

    @property
    def needs(self) -> frozenset[str]:
        """What the losses want beside output and target: "ema_output", "lq"."""
        return frozenset().union(*(getattr(each.loss, "needs", frozenset()) for each in self.losses))

    def generator_loss(self, module: nn.Module, batch: Batch) -> Losses:
        """The upscaler's loss; leaves its output in the batch for the discriminator."""
        output = module(batch["lq"])
        batch["output"] = output.detach()
        terms = self._image_terms(output.float(), batch)
        if self.gan is not None:
            logits = self.gan.discriminator(output)
            terms[GAN_TERM] = self.gan.weight * generator_loss(self.gan.kind, logits, self.gan.real_label)
            if self.adversary is not None:
                self.adversary.heard(terms[GAN_TERM].detach())
        per_sample = torch.stack(list(terms.values())).sum(0)
        return Losses(per_sample, terms if len(terms) > 1 else {})

    def discriminator_loss(self, module: nn.Module, batch: Batch) -> Losses:
        """Real and fake in one pass, because a module under DDP is called once; (b,) each, not halved."""
        assert self.gan is not None
        fake = batch["output"].to(batch["gt"].dtype)
        both = torch.cat([batch["gt"], fake])
        logits = module(both, parts=2) if getattr(self.gan.discriminator, "separates", False) else module(both)
        real_logits, fake_logits = _halves(logits)
        labels = {"real_label": self.gan.real_label, "fake_label": self.gan.fake_label}
        real = discriminator_loss(self.gan.kind, real_logits, True, **labels)
        false = discriminator_loss(self.gan.kind, fake_logits, False, **labels)
        return Losses(real + false, {"real": real, "fake": false})

    def _image_terms(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        inputs = LossInputs(output, batch["gt"], batch.get("ema_output"), batch["lq"])
        for each in self.losses:
            shown = inputs
            if each.weight < 0:
                shown = LossInputs(output, _enlarged(batch, output), batch.get("ema_output"), batch["lq"])
            for name, value in each.loss(shown).items():
                terms[f"{each.label}{name}"] = each.weight * value
        return terms


class AdaptiveAdversary:
    """Lets the discriminator rest in steps in which the generator's GAN loss is above its usual value.

    The decision must be the same in all processes and in a resumed run, so the loss is summed up, smoothed and kept.
    """

    def __init__(self, decay: float, threshold: float, sum_: Callable[[Tensor], Tensor]) -> None:
        self.decay = decay
        self.threshold = threshold
        self.sum_ = sum_
        self.usual: float | None = None
        self._heard: list[Tensor] = []

    def heard(self, losses: Tensor) -> None:
        """The GAN losses of a forward pass, (b,)."""
        self._heard.append(losses)

    def works(self) -> bool:
        """Whether the discriminator takes part in this step. Asked once a step; waits for the device."""
        if not self._heard:
            return True
        every = torch.cat(self._heard)
        total, count = self.sum_(torch.stack([every.sum(), torch.ones_like(every).sum()])).tolist()
        self._heard = []
        loss = total / max(1.0, count)
        usual = loss if self.usual is None else self.usual
        self.usual = self.decay * usual + (1 - self.decay) * loss
        return bool(loss <= usual * self.threshold)

    def state_dict(self) -> dict[str, Any]:
        return {"usual": self.usual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.usual = state["usual"]


def build_losses(components: Sequence[Component], device: torch.device) -> list[Weighted]:
    """The image losses of a preset, with their own networks on the device. Raises Refusal when a network's weights
    cannot be had."""
    names = [component.type.casefold() for component in components]
    built = []
    for index, component in enumerate(components):
        options = {name: value for name, value in component.options.items() if name != "loss_weight"}
        loss = loss_named(component.type)(**options)
        if isinstance(loss, nn.Module):
            loss.requires_grad_(False).eval().to(device)
        label = f"{index}_" if names.count(names[index]) > 1 else ""
        built.append(Weighted(loss, float(component.options.get("loss_weight", 1.0)), label))  # type: ignore[arg-type]
    return built


def _enlarged(batch: Batch, output: Tensor) -> Tensor:
    return bicubic(batch["lq"].float(), (output.shape[-2], output.shape[-1])).clamp(0, 1)


def _halves(logits: Any) -> tuple[Any, Any]:
    """The answers for the first and the second half of a batch; a discriminator may answer at several scales."""
    if isinstance(logits, Tensor):
        first, second = logits.chunk(2)
        return first, second
    pairs = [_halves(each) for each in logits]
    return [first for first, _ in pairs], [second for _, second in pairs]
