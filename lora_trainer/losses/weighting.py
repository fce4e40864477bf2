"""How much each sample's loss counts, given how noisy the sample was.

Letters: b batch, c channels, h w latent pixels. SNR is the ratio of the signal's variance to the noise's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_SNR = 1000.0  # the weights stop changing here: the few least noisy timesteps
SMALLEST_SNR = 0.0046  # just below timestep 999 of the plain schedule, whose SNR is 0.00468


@dataclass(frozen=True)
class Weighting:
    """Which weights apply; sd-scripts' keys, where 0 and False switch them off."""

    v_prediction: bool = False
    min_snr_gamma: float = 0.0
    scale_v_pred_loss_like_noise_pred: bool = False
    v_pred_like_loss: float = 0.0
    debiased_estimation_loss: bool = False

    def __post_init__(self) -> None:
        if self.v_pred_like_loss and self.v_prediction:
            raise ValueError("v_pred_like_loss is for noise prediction; this is v-prediction")
        if self.scale_v_pred_loss_like_noise_pred and not self.v_prediction:
            raise ValueError("scale_v_pred_loss_like_noise_pred is for v-prediction; this is noise prediction")


def weighted(losses: Tensor, timesteps: Tensor, snr: Tensor, weighting: Weighting) -> Tensor:
    """(b,) the losses times the weights of their timesteps, (b,), applied in the order of sd-scripts.

    ``snr`` is the table of all timesteps, (t,). Where it falls below the SNR that ends the plain schedule, that one is
    taken: with a zero terminal SNR some weights would otherwise be infinite, and sd-scripts, too, takes its table from
    the schedule before the rescaling.
    """
    of_sample = snr.to(losses.device)[timesteps].clamp(min=SMALLEST_SNR)
    v_prediction = weighting.v_prediction
    if weighting.min_snr_gamma:
        losses = losses * min_snr(of_sample, weighting.min_snr_gamma, v_prediction=v_prediction)
    if weighting.scale_v_pred_loss_like_noise_pred:
        losses = losses * v_scale(of_sample)
    if weighting.v_pred_like_loss:
        losses = losses + losses / v_scale(of_sample) * weighting.v_pred_like_loss
    if weighting.debiased_estimation_loss:
        losses = losses * debiased(of_sample, v_prediction=v_prediction)
    return losses


def min_snr(snr: Tensor, gamma: float, *, v_prediction: bool) -> Tensor:
    """Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy"."""
    return snr.clamp(max=gamma) / (snr + 1 if v_prediction else snr)


def debiased(snr: Tensor, *, v_prediction: bool) -> Tensor:
    """Yu et al. 2023, "Unmasking Bias in Diffusion Model Training"."""
    capped = snr.clamp(max=LARGEST_SNR)
    return 1 / (capped + 1) if v_prediction else torch.rsqrt(capped)


def v_scale(snr: Tensor) -> Tensor:
    """What turns the loss of a velocity into the loss of the noise it implies."""
    capped = snr.clamp(max=LARGEST_SNR)
    return capped / (capped + 1)
