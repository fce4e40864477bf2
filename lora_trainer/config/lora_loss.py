"""The keys of a LoRA preset about the noise that is added and the loss that is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from lora_trainer.config.kinds import AnyCase, NotNegative, Number, Share, Switch, Whole
from lora_trainer.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class NoiseAndLoss:
    """Noise and timesteps, then the weight of a sample at its timestep. snr is the signal-to-noise ratio there."""

    noise_offset_type: Annotated[Literal["Original", "Multires"], AnyCase()] = setting(
        "Original", "Original reads noise_offset and adaptive_noise_scale, Multires reads multires_noise_*."
    )
    noise_offset: Share = setting(
        0.0,
        "Adds one normal draw per sample and channel, times this, to the noise, so that overall brightness is "
        "learnt: noise += noise_offset * normal(b, c, 1, 1). 0 is off; 0.03 to 0.1 is usual.",
        blank=0.0,
    )
    noise_offset_random_strength: Switch = setting(
        False, "The strength is drawn anew between 0 and noise_offset for each step."
    )
    adaptive_noise_scale: Annotated[Number, Ge(-1), Le(1)] = setting(
        0.0, "Adds this times the absolute mean of each latent channel to the strength, which stays at least 0."
    )
    multires_noise_iterations: Annotated[Whole, Ge(0), Le(64)] = setting(
        0,
        "Adds noise of ever lower resolution, each level 2 to 4 times smaller and enlarged again, then divides by "
        "the standard deviation of the sum. 0 is off; 6 to 10 is usual.",
    )
    multires_noise_discount: Share = setting(0.3, "Level i of the above counts discount ** i.")
    ip_noise_gamma: Share = setting(
        0.0,
        "The model's input gets this much more noise than it is asked for: noise + gamma * normal. 0 is off; 0.1 "
        "is usual.",
    )
    ip_noise_gamma_random_strength: Switch = setting(
        False, "The gamma is drawn anew between 0 and ip_noise_gamma for each step."
    )
    min_timestep: Annotated[Whole, Ge(0), Le(999)] = setting(0, "The lowest timestep drawn; 0 is nearly no noise.")
    max_timestep: Annotated[Whole, Ge(1), Le(1000)] = setting(
        1000, "Timesteps are drawn below this one; 1000 is all noise.", old_values={0: 1000}
    )
    min_snr_gamma: NotNegative = setting(
        0.0,
        "Weighs a sample with min(snr, gamma) / snr, or min(snr, gamma) / (snr + 1) with v_parameterization. 0 is "
        "off; 5 is usual.",
    )
    debiased_estimation_loss: Switch = setting(
        False,
        "Weighs a sample with 1 / sqrt(min(snr, 1000)), or 1 / (min(snr, 1000) + 1) with v_parameterization. "
        "Multiplies with min_snr_gamma when both are on.",
    )
    v_pred_like_loss: NotNegative = setting(
        0.0, "Adds loss / scale times this, scale = s / (s + 1), s = min(snr, 1000): closer to a v-prediction loss."
    )
    scale_v_pred_loss_like_noise_pred: Switch = setting(
        False, "With v_parameterization: multiplies the loss by s / (s + 1), s = min(snr, 1000)."
    )
    loss_type: Annotated[Literal["l2", "l1", "huber", "smooth_l1"], AnyCase()] = setting(
        "l2",
        "How the difference d between target and prediction counts: d ** 2, |d|, 2 c (sqrt(d ** 2 + c ** 2) - c) for "
        "huber, and the same without the first c for smooth_l1; c is the Huber threshold.",
    )
    huber_schedule: Annotated[Literal["snr", "exponential", "constant"], AnyCase()] = setting(
        "snr",
        "How the Huber threshold falls from 1 at no noise to huber_c at most noise: with the signal-to-noise ratio, "
        "exponentially, or not at all.",
    )
    huber_c: Annotated[Number, Gt(0), Le(1)] = setting(
        0.1, "The Huber threshold at the noisiest timestep.", old_values={0: 0.1}
    )
    huber_scale: Annotated[Number, Gt(0)] = setting(1.0, "Multiplies the Huber threshold.", old_values={0: 1.0})
    zero_terminal_snr: Switch = setting(
        False,
        "Rescale the noise schedule so that the last timestep is noise alone. For v-prediction models that are meant "
        "for it; a base model that says so itself turns it on.",
    )
