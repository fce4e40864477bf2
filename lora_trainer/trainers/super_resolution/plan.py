"""What a dry run tells of a super-resolution training, and the sheet of what its steps see."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lora_trainer.data.degradation import describe, plan_degradation
from lora_trainer.data.picture_tensors import as_pixels
from lora_trainer.data.resize import bicubic
from lora_trainer.trainers.preview_sheet import write_table
from lora_trainer.trainers.super_resolution.checks import degradation_settings
from lora_trainer.trainers.super_resolution.trainer import SuperResolutionTrainer

SHEET_ROWS = 8


def plan_super_resolution(trainer: SuperResolutionTrainer) -> list[tuple[str, str]]:
    """Rows of a name and a text."""
    job, preset, network = trainer.job, trainer.job.preset, trainer.network
    numbers = sum(weight.numel() for weight in trainer.phases[0].weights.values())
    rows = [
        ("generator", f"{network.type} {preset.scale}x, {numbers:,} trained numbers"),
        ("starts from", preset.pretrain_network_g or "nothing"),
    ]
    if len(trainer.phases) > 1:
        judge = sum(weight.numel() for weight in trainer.phases[1].weights.values())
        rows.append(("discriminator", f"{preset.network_d.type}, {judge:,} numbers"))
    rows += [
        ("pictures", job.spoken),
        ("low resolution", _low_resolution(trainer)),
        ("losses", ", ".join(f"{loss.type} {loss.options.get('loss_weight', 1.0)}" for loss in preset.active_losses)),
        ("held out", _held_out(trainer)),
        ("memory", ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in memory_bytes(trainer).items())),
        ("sheet", str(draw_samples(trainer))),
    ]
    return rows


def draw_samples(trainer: SuperResolutionTrainer) -> Path:
    """The first crops of the training as the networks see them, beside their originals. Gives the file."""
    path = Path(trainer.job.preset.output_dir) / f"{trainer.job.preset.output_name}_samples.png"
    rows = []
    for step in range(SHEET_ROWS):
        for micro in trainer.prepare(step, _on_device(trainer, trainer.data(step))):
            lq = micro["lq"]
            enlarged = bicubic(lq, (micro["gt"].shape[-2], micro["gt"].shape[-1])).clamp(0, 1)
            for index in range(len(lq)):
                one = slice(index, index + 1)
                rows.append([as_pixels(micro["gt"][one]), as_pixels(enlarged[one]), as_pixels(lq[one])])
        if len(rows) >= SHEET_ROWS:
            break
    write_table(path, ["high resolution", "low, enlarged", "low"], rows[:SHEET_ROWS])
    return path


def memory_bytes(trainer: SuperResolutionTrainer) -> dict[str, int]:
    """What each component holds, before activations: those depend on the crop, and the trial step shows them."""
    sizes = {"generator": _bytes(trainer.network.module)}
    if trainer.ema is not None:
        sizes["average"] = _bytes(trainer.network.module)
    if len(trainer.phases) > 1:
        sizes["discriminator"] = _bytes(trainer.phases[1].module)
    trained = sum(weight.numel() for phase in trainer.phases for weight in phase.weights.values())
    sizes["gradients"] = 4 * trained
    sizes["optimizers, when they keep two moments"] = 8 * trained
    return sizes


def _low_resolution(trainer: SuperResolutionTrainer) -> str:
    preset = trainer.job.preset
    if not preset.high_order_degradation:
        return "paired pictures" if preset.dataroot_lq else f"made by {preset.lq_resize_mode} downscaling"
    plan = plan_degradation(degradation_settings(preset), preset.scale, (preset.gt_px, preset.gt_px), 1)
    return f"degraded anew for every crop, for example: {describe(plan)}"


def _held_out(trainer: SuperResolutionTrainer) -> str:
    job = trainer.job
    if job.held_out is None:
        return "nothing: val_enabled is false"
    return f"{len(job.held_out.pairs)} pictures, measured every {job.preset.val_freq} steps"


def _on_device(trainer: SuperResolutionTrainer, micros: Iterable[dict[str, object]]) -> list[dict[str, object]]:
    device = next(trainer.network.module.parameters()).device
    return [
        {key: value.to(device) if torch.is_tensor(value) else value for key, value in micro.items()} for micro in micros
    ]


def _bytes(module: nn.Module) -> int:
    return int(np.sum([tensor.numel() * tensor.element_size() for tensor in module.state_dict().values()]))
