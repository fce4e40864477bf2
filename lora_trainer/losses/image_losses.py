"""The image losses by their names in traiNNer-redux, with that program's options.

A factory's keyword parameters are the options of a preset. What it makes takes `LossInputs` and gives named parts, (b,)
each, whose sum is the loss; the names are those of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from lora_trainer.errors import Refusal
from lora_trainer.losses.colour import average_loss, bicubic_loss, color_loss, cosim_loss, luma_loss, ncc_loss
from lora_trainer.losses.deep_similarity import Dists, Lpips
from lora_trainer.losses.edges import gradient_variance_loss, sobel_edge_loss
from lora_trainer.losses.frequency import fft_loss, focal_frequency_loss
from lora_trainer.losses.hsluv import THIRD, hsluv_loss
from lora_trainer.losses.local_discriminative import WINDOW_PX, ldl_loss
from lora_trainer.losses.ms_ssim_l1 import SIGMAS_PX, K, ms_ssim_l1_loss
from lora_trainer.losses.perceptual import FrequencyOptions, PerceptualDifference, default_layer_weights
from lora_trainer.losses.pixel import CHARBONNIER_EPS, charbonnier_loss, difference_named, l1_loss, mse_loss, psnr_loss
from lora_trainer.losses.pretrained import read_weights
from lora_trainer.losses.ssim import luma_named, mssim_loss, ssim_loss
from lora_trainer.losses.vgg import VGG19, build_vgg19

EMA_OUTPUT, LQ = "ema_output", "lq"


@dataclass(frozen=True)
class LossInputs:
    """Pictures, (b, 3, h, w) from 0 to 1; the low resolution ``lq`` is smaller."""

    output: Tensor
    target: Tensor
    ema_output: Tensor | None = None
    lq: Tensor | None = None


class ImageLoss(Protocol):
    """``needs`` names the optional inputs that must be there. A loss with a network of its own is an nn.Module."""

    @property
    def needs(self) -> frozenset[str]: ...

    def __call__(self, inputs: LossInputs, /) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Comparison:
    """A loss of the output and the target alone; ``function`` gives (b,)."""

    name: str
    function: Callable[..., Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()

    def __call__(self, inputs: LossInputs, /) -> dict[str, Tensor]:
        return {self.name: self.function(inputs.output, inputs.target, **self.options)}


@dataclass(frozen=True)
class Hsluv:
    """Hue, saturation and lightness, each with its weight."""

    weights: Mapping[str, float]
    options: Mapping[str, Any]
    needs: frozenset[str] = frozenset()

    def __call__(self, inputs: LossInputs, /) -> dict[str, Tensor]:
        parts = hsluv_loss(inputs.output, inputs.target, **self.options)
        return {f"hsluv_{name}": self.weights[name] * value for name, value in parts.items()}


@dataclass(frozen=True)
class LocallyDiscriminative:
    """LDL, which knows artifacts by comparing with the averaged generator."""

    options: Mapping[str, Any]
    needs: frozenset[str] = frozenset({EMA_OUTPUT})

    def __call__(self, inputs: LossInputs, /) -> dict[str, Tensor]:
        if inputs.ema_output is None:
            raise ValueError("ldlloss needs ema_output")
        return {"ldl": ldl_loss(inputs.output, inputs.target, inputs.ema_output, **self.options)}


class NetworkLoss(nn.Module):
    """A loss with a frozen network: ``module`` takes output and target and gives (b,)."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.module = module
        self.needs: frozenset[str] = frozenset()
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> NetworkLoss:
        """Stays in evaluation mode, whatever it is part of."""
        return super().train(False)

    def forward(self, inputs: LossInputs, /) -> dict[str, Tensor]:
        return {self.name: self.module(inputs.output, inputs.target)}


def l1(reduction: str = "mean") -> ImageLoss:
    return Comparison("l1", l1_loss, _mean(reduction))


def mse(reduction: str = "mean") -> ImageLoss:
    return Comparison("mse", mse_loss, _mean(reduction))


def charbonnier(reduction: str = "mean", eps: float = CHARBONNIER_EPS) -> ImageLoss:
    return Comparison("charbonnier", charbonnier_loss, {**_mean(reduction), "eps": eps})


def psnr(reduction: str = "mean", to_y: bool = False) -> ImageLoss:
    return Comparison("psnr", psnr_loss, {**_mean(reduction), "to_y": to_y})


def ms_ssim_l1(
    alpha: float = 0.1,
    gaussian_sigmas: Sequence[float] | None = None,
    k: Sequence[float] = K,
    interleaved_scales: bool = False,
) -> ImageLoss:
    sigmas = tuple(gaussian_sigmas or SIGMAS_PX)
    options = {"alpha": alpha, "sigmas_px": sigmas, "k": tuple(k), "interleaved_scales": interleaved_scales}
    return Comparison("msssiml1", ms_ssim_l1_loss, options)


def ssim(
    downsample: bool = False, test_y_channel: bool = True, color_space: str = "yiq", crop_border: int = 0
) -> ImageLoss:
    luma_named(color_space)  # refuses what it does not know
    options = {"downsample": downsample, "test_y_channel": test_y_channel, "color_space": color_space}
    return Comparison("ssim", ssim_loss, {**options, "crop_border": int(crop_border)})


def mssim(
    downsample: bool = False,
    test_y_channel: bool = True,
    is_prod: bool = True,
    color_space: str = "yiq",
    include_luminance: bool = False,
) -> ImageLoss:
    luma_named(color_space)  # refuses what it does not know
    options = {"downsample": downsample, "test_y_channel": test_y_channel, "color_space": color_space}
    return Comparison("mssim", mssim_loss, {**options, "is_prod": is_prod, "include_luminance": include_luminance})


def hsluv(
    criterion: str = "l1",
    hue_weight: float = THIRD,
    saturation_weight: float = THIRD,
    lightness_weight: float = THIRD,
    downscale_factor: int = 1,
) -> ImageLoss:
    weights = {"hue": hue_weight, "saturation": saturation_weight, "lightness": lightness_weight}
    return Hsluv(weights, {**_criterion(criterion), "downscale_factor": downscale_factor})


def perceptual(
    criterion: str = "charbonnier",
    layer_weights: Mapping[str, float] | None = None,
    alpha: Sequence[float] | None = None,
    w_lambda: float = 0.01,
    num_proj_fd: int = 256,
    phase_weight_fd: float = 1.0,
    stride_fd: int = 1,
    weights: str = "",
) -> ImageLoss:
    """VGG19; ``weights`` is the path of torchvision's file, "" downloads it. Raises Refusal."""
    usual = default_layer_weights(criterion)
    chosen = layer_weights or usual
    network = build_vgg19(list(chosen), read_weights(VGG19, Path(weights) if weights else None))
    frequency = FrequencyOptions(num_proj_fd, phase_weight_fd, stride_fd)
    return NetworkLoss("perceptual", PerceptualDifference(network, chosen, criterion, alpha, w_lambda, frequency))


def ldl(criterion: str = "l1", ksize: int = WINDOW_PX) -> ImageLoss:
    return LocallyDiscriminative({**_criterion(criterion), "ksize": ksize})


def focal_frequency(
    alpha: float = 1.0,
    patch_factor: int = 1,
    ave_spectrum: bool = True,
    log_matrix: bool = False,
    batch_matrix: bool = False,
) -> ImageLoss:
    options = {"alpha": alpha, "patch_factor": patch_factor, "ave_spectrum": ave_spectrum}
    return Comparison("ff", focal_frequency_loss, {**options, "log_matrix": log_matrix, "batch_matrix": batch_matrix})


def fft(reduction: str = "mean") -> ImageLoss:
    return Comparison("fft", fft_loss, _mean(reduction))


def sobel_edge() -> ImageLoss:
    return Comparison("sobeledge", sobel_edge_loss)


def gradient_variance(patch_size: int = 16, criterion: str = "charbonnier") -> ImageLoss:
    return Comparison("gradientvariance", gradient_variance_loss, {**_criterion(criterion), "patch_size": patch_size})


def luma(criterion: str = "l1") -> ImageLoss:
    return Comparison("luma", luma_loss, _criterion(criterion))


def color(criterion: str = "l1", scale: int = 4) -> ImageLoss:
    return Comparison("color", color_loss, {**_criterion(criterion), "scale": scale})


def average(criterion: str = "l1", scale: int = 4) -> ImageLoss:
    return Comparison("average", average_loss, {**_criterion(criterion), "scale": scale})


def bicubic(criterion: str = "l1", scale: int = 4) -> ImageLoss:
    return Comparison("bicubic", bicubic_loss, {**_criterion(criterion), "scale": scale})


def cosim(cosim_lambda: float = 5.0) -> ImageLoss:
    return Comparison("cosim", cosim_loss, {"cosim_lambda": cosim_lambda})


def ncc() -> ImageLoss:
    return Comparison("ncc", ncc_loss)


def dists(clip_min: float = 0.0, weights: str = "") -> ImageLoss:
    """``weights`` is a folder with the two files that `Dists` names, "" downloads them. Raises Refusal."""
    return NetworkLoss("dists", Dists(weights, clip_min))


def lpips(weights: str = "") -> ImageLoss:
    """``weights`` is a folder with the two files that `Lpips` names, "" downloads them. Raises Refusal."""
    return NetworkLoss("lpips", Lpips(weights))


IMAGE_LOSSES: Mapping[str, Callable[..., ImageLoss]] = {
    "l1loss": l1,
    "mseloss": mse,
    "charbonnierloss": charbonnier,
    "psnrloss": psnr,
    "msssiml1loss": ms_ssim_l1,
    "ssimloss": ssim,
    "mssimloss": mssim,
    "hsluvloss": hsluv,
    "perceptualloss": perceptual,
    "ldlloss": ldl,
    "ffloss": focal_frequency,
    "fftloss": fft,
    "sobeledgeloss": sobel_edge,
    "gradientvarianceloss": gradient_variance,
    "lumaloss": luma,
    "colorloss": color,
    "averageloss": average,
    "bicubicloss": bicubic,
    "cosimloss": cosim,
    "nccloss": ncc,
    "distsloss": dists,
    "lpipsloss": lpips,
}


def loss_named(name: str) -> Callable[..., ImageLoss]:
    """The factory, whatever the name's capitals. Raises KeyError."""
    return IMAGE_LOSSES[name.casefold()]


def _criterion(criterion: str) -> dict[str, str]:
    difference_named(criterion)  # refuses what it does not know
    return {"criterion": criterion}


def _mean(reduction: str) -> dict[str, Any]:
    if reduction != "mean":
        raise Refusal(f"reduction {reduction!r} is not supported; the losses are means: write mean, or leave it out")
    return {}
