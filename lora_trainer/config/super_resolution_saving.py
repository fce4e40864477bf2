"""The keys of a super-resolution preset about validation and files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lora_trainer.config.kinds import AnyCase, Component, Count, NamedParts, Positive, Switch, Text
from lora_trainer.config.setting import no_effect, setting

PSNR = Component("calculate_psnr", {"crop_border": 4, "test_y_channel": False})
SSIM = Component("calculate_ssim", {"crop_border": 4, "test_y_channel": False})


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Measuring on held-out pictures while the training goes on."""

    val_enabled: Switch = setting(False, "Measure on val_dataroot_gt.", may_change=True)
    val_freq: Positive = setting(1000, "Steps between two validations.", may_change=True)
    save_img: Switch = setting(True, "Keep the upscaled pictures of each validation.", may_change=True)
    metrics_enabled: Switch = setting(True, "Compute the metrics.", may_change=True)
    metrics: NamedParts = setting(
        (("psnr", PSNR), ("ssim", SSIM)),
        "What is measured: calculate_psnr, calculate_ssim, calculate_ms_ssim, calculate_lpips, calculate_dists.",
        may_change=True,
    )
    save_best: Text = setting(
        "", "The metric whose best value keeps a file <output_name>-best; none: no such file.", may_change=True
    )
    val_crop_px: Count = setting(
        128, "The side of the crop that the sheet over time shows of each picture, in its pixels; 0: no sheet.",
        may_change=True,
    )  # fmt: skip
    tile_size: Count = setting(
        0, "Upscale held-out pictures in tiles of this side, in low-resolution pixels; 0 is whole.", may_change=True
    )
    tile_overlap: Count = setting(8, "Pixels by which the tiles overlap.", may_change=True)
    suffix: Text = setting(
        "", "Added to pictures' names.", may_change=True, effect=no_effect("pictures are named after the step")
    )
    pbar: Switch = setting(True, "A progress bar.", may_change=True, effect=no_effect("validation is one line"))


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The upscaler's files."""

    save_checkpoint_freq: Count = setting(0, "Steps between two files; 0 is only the one at the end.", may_change=True)
    save_checkpoint_format: Annotated[Literal["safetensors", "pth"], AnyCase()] = setting(
        "safetensors", "The format of the files.", may_change=True
    )
    save_precision: Annotated[Literal["float", "fp16", "bf16"], AnyCase()] = setting(
        "float", "The number format of the weights in the files; float is 32 bits.", may_change=True
    )
    keep_last: Count = setting(0, "How many of the files made on the way stay; 0 is all of them.", may_change=True)
