"""The two sides of a GAN's loss.

A discriminator's logits are (b, 1, h, w), (b, 1), or a list of such, one for each scale; a list within it holds the
layers of a scale, of which the last counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.pixel import per_sample

GAN_TYPES = ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge")
Logits: TypeAlias = Tensor | Sequence[Any]


def generator_loss(kind: str, fake_logits: Logits, real_label: float = 1.0) -> Tensor:
    """(b,) how far the discriminator is from taking the fakes for real. Raises Refusal for an unknown kind."""
    return _over_scales(fake_logits, lambda scale: _generator(scale, kind, real_label))


def discriminator_loss(
    kind: str, logits: Logits, is_real: bool, *, real_label: float = 1.0, fake_label: float = 0.0
) -> Tensor:
    """(b,) how far the discriminator is from seeing what is real and what is not; the sides are added, not halved.

    The labels are those of vanilla and lsgan. Raises Refusal for an unknown kind.
    """
    label = real_label if is_real else fake_label
    return _over_scales(logits, lambda scale: _discriminator(scale, kind, is_real, label))


@full_precision
def _generator(logits: Tensor, kind: str, real_label: float) -> Tensor:
    if kind == "hinge":
        return -per_sample(logits)
    return _discriminator(logits, kind, True, real_label)


@full_precision
def _discriminator(logits: Tensor, kind: str, is_real: bool, label: float) -> Tensor:
    signed = -logits if is_real else logits
    if kind == "vanilla":
        target = torch.full_like(logits, label)
        return per_sample(F.binary_cross_entropy_with_logits(logits, target, reduction="none"))
    if kind == "lsgan":
        return per_sample((logits - label).square())
    if kind == "wgan":
        return per_sample(signed)
    if kind == "wgan_softplus":
        return per_sample(F.softplus(signed))
    if kind == "hinge":
        return per_sample(F.relu(1 + signed))
    raise Refusal(f"there is no gan_type {kind!r}; write one of {', '.join(GAN_TYPES)}")


def _over_scales(logits: Logits, loss: Any) -> Tensor:
    if isinstance(logits, Tensor):
        return loss(logits)  # type: ignore[no-any-return]
    last_layers = [scale if isinstance(scale, Tensor) else scale[-1] for scale in logits]
    return torch.stack([loss(scale) for scale in last_layers]).mean(0)
