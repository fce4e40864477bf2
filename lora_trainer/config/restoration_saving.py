"""The keys of a restoration preset about its folder, its files, what is logged, and validation."""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.config import common
from lora_trainer.config.kinds import Count, FileName, Switch, Text, Words
from lora_trainer.config.setting import no_effect, setting


@dataclass(frozen=True, kw_only=True)
class Run(common.Run):
    """What is trained, and where the results go."""

    output_name: FileName = setting(
        "restoration",
        "The name of the run in the tracker and of the .safetensors files; without it, that of the preset's file.",
        may_change=True,
    )


@dataclass(frozen=True, kw_only=True)
class Logging(common.Logging):
    """What is recorded while the run goes on."""

    log_image_steps: Count = setting(
        100, "Steps between two sheets of trained pictures: bad, good, restored; 0 is never.", may_change=True
    )
    log_grad_steps: Count = setting(
        100,
        "Steps between two measurements of how strongly each loss pulls, as grad_norm/conv_out_l2 and so on; 0 is "
        "never. Each costs one backward pass more for every loss.",
        may_change=True,
    )
    log_grad_modules: Words = setting(
        ("conv_out",), "The layers with a LoRA that are measured, each by the end of its name.", may_change=True
    )
    swanlab_workspace: Text = setting(
        "",
        "The workspace in swanlab.",
        may_change=True,
        effect=no_effect("log_tracker_config names a file with such options: [swanlab] with workspace"),
    )


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Measuring on held-out pairs while the training goes on, without chance: PSNR, SSIM, LPIPS and Final_Score."""

    validation_steps: Count = setting(
        500, "Steps between two measurements of val_dir; 0 is only before the first and at the end.", may_change=True
    )
    save_best: Switch = setting(
        True, "Keep the LoRA with the highest Final_Score, which is PSNR + 10 SSIM - 5 LPIPS.", may_change=True
    )


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The LoRA's files: folders checkpoint-500 with state_dict.pth, the average beside it, both as .safetensors too."""

    checkpointing_steps: Count = setting(
        500, "Steps between two folders of the LoRA; 0 is only at the end.", may_change=True
    )
    checkpoints_total_limit: Count = setting(
        2, "How many of these folders stay, the newest; 0, or not set, is all.", blank=0, may_change=True
    )
