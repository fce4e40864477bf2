"""What the report of an upscaler's training tells of it."""

from __future__ import annotations

from collections import Counter

from lora_trainer.engine.run_facts import Material, Rows
from lora_trainer.trainers.material import pair_thumbnails, plural, size_counts
from lora_trainer.trainers.super_resolution.job import SuperResolutionJob

LOADS: Rows = (
    ("chaiNNer", "Load {file} with the node Load Model, and give it to Upscale Image."),
    ("ComfyUI", "Put {file} into models/upscale_models and load it with the node Load Upscale Model."),
    ("here", "python -m tools.upscale --model {file} --input pictures --output upscaled"),
)


def super_resolution_material(job: SuperResolutionJob) -> Material:
    preset, pairs = job.preset, job.pairs.pairs
    word = "pair" if preset.dataroot_lq else "picture"
    low = "read from pairs" if preset.dataroot_lq else f"made by {preset.lq_resize_mode} downscaling"
    rows = [
        ("pictures", plural(len(pairs), word)),
        ("low resolution", "degraded anew for every crop" if preset.high_order_degradation else low),
        ("crops", f"{preset.gt_px} px, {preset.lq_px} px in low resolution; {job.total_batch} a step"),
        ("losses", ", ".join(loss.type for loss in preset.active_losses)),
        ("held out", plural(len(job.held_out.pairs), "picture") if job.held_out else "nothing"),
    ]
    return Material(
        f"An upscaler {preset.network_g.type} {preset.scale}x, trained on {plural(len(pairs), word)}",
        tuple(rows),
        size_counts("Sizes, pictures", Counter(pair.gt_px for pair in pairs)),
        pair_thumbnails(pairs),
        LOADS,
    )
