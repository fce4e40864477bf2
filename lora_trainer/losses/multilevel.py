"""The adversarial loss over several heads of one discriminator, with a label below 1, and R1 on what the heads see.

Letters: b batch. Every head's logits are (b, 1, h, w) or (b, 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_trainer.losses.adversarial import discriminator_loss, generator_loss
from lora_trainer.losses.pixel import per_sample

REAL_LABEL = 0.8
KIND = "vanilla"


def heads_generator_loss(fake_logits: Sequence[Tensor], real_label: float = REAL_LABEL) -> Tensor:
    """(b,) the cross entropy of calling the fakes real: a mean over each map's places, added up over the heads."""
    return torch.stack([generator_loss(KIND, logits, real_label) for logits in fake_logits]).sum(0)


def heads_discriminator_loss(logits: Sequence[Tensor], is_real: bool, real_label: float = REAL_LABEL) -> Tensor:
    """(b,) the same for real pictures with the label `real_label`, for fakes with 0; both sides are to be added."""
    sides = [discriminator_loss(KIND, each, is_real, real_label=real_label) for each in logits]
    return torch.stack(sides).sum(0)


def mean_logit(logits: Sequence[Tensor]) -> Tensor:
    """(b,) what is logged: the mean over the heads of each head's mean."""
    return torch.stack([per_sample(each) for each in logits]).mean(0)


def heads_r1(real_logits: Sequence[Tensor], features: Sequence[Tensor], gamma: float) -> Tensor:
    """(b,) R1 (Mescheder et al. 2018) on what the heads see of real pictures, so that the backbone is not derived.

    gamma / 2 times the squared gradient of a logit by its features: a mean over each map's places, added up over the
    heads. `features` require a gradient. Where neighbouring logits look at the same features, their gradients are
    added before they are squared.
    """
    total = sum(logits.sum() for logits in real_logits)
    gradients = torch.autograd.grad(total, list(features), create_graph=True)  # type: ignore[arg-type]
    penalties = [
        gradient.square().flatten(1).sum(1) / logits[0].numel()
        for gradient, logits in zip(gradients, real_logits, strict=True)
    ]
    return torch.stack(penalties).sum(0) * (gamma / 2)
