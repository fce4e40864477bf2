"""A super-resolution training as far as it is known before a network is built: pictures, batches, length."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.config.reader import Loaded
from lora_trainer.config.super_resolution import SuperResolutionPreset
from lora_trainer.data.batches import BatchPlan, Share
from lora_trainer.data.pair_crops import PairCrops
from lora_trainer.data.pair_store import open_store
from lora_trainer.data.pairs import PairSet, PairSettings, pairs_fingerprint, survey_pairs
from lora_trainer.engine.cadence import NEVER, Cadence
from lora_trainer.engine.kept_files import Keep
from lora_trainer.engine.validation import NO_VALIDATION, Validation
from lora_trainer.errors import Refusal
from lora_trainer.models.sr_networks import overflows_in_fp16
from lora_trainer.models.weights_identity import weights_identity
from lora_trainer.trainers.job import Job
from lora_trainer.trainers.super_resolution.checks import part_problems
from lora_trainer.trainers.super_resolution.metrics import directions

REPLACED = (  # keys whose content, not whose spelling, says whether a run is the same
    "pretrain_network_g", "pretrain_network_d", "dataroot_gt", "dataroot_lq", "batch_size_per_gpu", "accum_iter",
    "mixed_precision", "use_amp", "amp_bf16", "seed", "gt_size", "lq_size",
)  # fmt: skip


@dataclass(frozen=True)
class SuperResolutionJob(Job):
    """The training's pictures, and those that are held out."""

    preset: SuperResolutionPreset
    pairs: PairSet
    held_out: PairSet | None
    unsafe_fp16: bool

    @property
    def total_batch(self) -> int:
        """Crops per optimizer step, over all processes and accumulation passes."""
        return self.world * self.preset.batch_size_per_gpu * self.preset.accum_iter

    @property
    def plan(self) -> BatchPlan:
        size = (self.preset.gt_px, self.preset.gt_px)
        return BatchPlan(
            [size] * len(self.pairs.pairs), [pair.repeats for pair in self.pairs.pairs], self.total_batch, self.seed
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    @property
    def total_steps(self) -> int:
        return self.preset.total_iter

    @property
    def mixed_precision(self) -> str:
        """bf16 where the architecture overflows in fp16."""
        return "bf16" if self.preset.number_format == "fp16" and self.unsafe_fp16 else self.preset.number_format

    @property
    def saves(self) -> Cadence:
        return Cadence(every_n_steps=self.preset.save_checkpoint_freq)

    @property
    def keep(self) -> Keep:
        return Keep(step_files=self.preset.keep_last)

    @property
    def validation(self) -> Validation:
        preset = self.preset
        if self.held_out is None:
            return NO_VALIDATION
        metrics = preset.metrics if preset.metrics_enabled else ()
        return Validation(Cadence(every_n_steps=preset.val_freq), directions(metrics), preset.save_best)

    @property
    def previews(self) -> Cadence:
        """The sheet over time that validation leaves."""
        return self.validation.cadence if self.preset.val_crop_px else NEVER

    @property
    def workers(self) -> int:
        return min(self.preset.num_worker_per_gpu, os.cpu_count() or 1)

    def data(self, rank: int) -> PairCrops:
        """The micro-batches of one process."""
        preset = self.preset
        return PairCrops(
            plan=self.plan,
            store=open_store(self.pairs.pairs, preset.cache_gib, preset.scale),
            scale=preset.scale,
            lq_px=preset.lq_px,
            share=Share(rank, self.world, preset.batch_size_per_gpu),
            use_hflip=preset.use_hflip,
            use_rot=preset.use_rot,
        )

    @property
    def spoken(self) -> str:
        """One line for the log."""
        count, preset = len(self.pairs.pairs), self.preset
        kind = "pairs" if preset.dataroot_lq else "pictures"
        return (
            f"{count} {kind}, crops of {preset.lq_px} px ({preset.gt_px} px high resolution), "
            f"{self.total_batch} a step: {self.steps_per_epoch} steps an epoch, {self.total_steps} in all"
        )


def inspect_super_resolution(loaded: Loaded, world: int, seed: int) -> SuperResolutionJob:
    """Look at everything the preset names. Raises Refusal with all that is wrong."""
    preset = loaded.preset
    assert isinstance(preset, SuperResolutionPreset)
    problems = [*part_problems(loaded), *_missing_pretrains(loaded, preset)]
    pairs = _surveyed(training_settings(preset), problems)
    held_out = _surveyed(held_out_settings(preset), problems) if preset.validates else None
    if problems or pairs is None:
        raise Refusal(*problems)
    unsafe = overflows_in_fp16(preset.network_g.type, preset.scale, preset.network_g.options)
    job = SuperResolutionJob(preset, seed, world, {}, pairs, held_out, unsafe)
    job.fingerprint.update(_fingerprint(loaded, job))
    return job


def check_super_resolution(loaded: Loaded) -> None:
    """What can be said without opening a picture. Raises Refusal."""
    preset = loaded.preset
    assert isinstance(preset, SuperResolutionPreset)
    problems = [*part_problems(loaded), *(() if loaded.follows else _missing_pretrains(loaded, preset))]
    for key in ("dataroot_gt", "dataroot_lq", *(("val_dataroot_gt", "val_dataroot_lq") if preset.validates else ())):
        for folder in getattr(preset, key):
            if not Path(folder).exists():
                problems.append(loaded.wrong(f"{folder}: there is no such folder", key))
    if problems:
        raise Refusal(*problems)


def training_settings(preset: SuperResolutionPreset) -> PairSettings:
    paired = preset.dataroot_lq if not preset.high_order_degradation or preset.dataroot_lq_prob else ()
    return PairSettings(
        dataroot_gt=preset.dataroot_gt,
        dataroot_lq=paired,
        meta_info=preset.meta_info,
        filename_tmpl=preset.filename_tmpl,
        io_backend=preset.io_backend,
        scale=preset.scale,
        gt_px=preset.gt_px,
        enlarge=preset.dataset_enlarge_ratio,
        cache_gib=preset.cache_gib,
    )


def held_out_settings(preset: SuperResolutionPreset) -> PairSettings:
    return PairSettings(
        dataroot_gt=preset.val_dataroot_gt,
        dataroot_lq=preset.val_dataroot_lq,
        meta_info=preset.val_meta_info,
        filename_tmpl=preset.val_filename_tmpl,
        io_backend=preset.val_io_backend,
        scale=preset.scale,
        gt_px=preset.scale,
        enlarge=1,
    )


def _surveyed(settings: PairSettings, problems: list[str]) -> PairSet | None:
    try:
        return survey_pairs(settings)
    except Refusal as refusal:
        problems.extend(refusal.problems)
        return None


def _missing_pretrains(loaded: Loaded, preset: SuperResolutionPreset) -> Sequence[str]:
    keys = ("pretrain_network_g", "pretrain_network_d") if preset.gan_loss is not None else ("pretrain_network_g",)
    return [
        loaded.wrong(f"{getattr(preset, key)}: there is no such file", key)
        for key in keys
        if getattr(preset, key) and not Path(getattr(preset, key)).is_file()
    ]


def _fingerprint(loaded: Loaded, job: SuperResolutionJob) -> dict[str, Any]:
    """Everything that decides about the steps already made; `mixed_precision` is added when the device is known."""
    preset = job.preset
    facts = {key: value for key, value in loaded.steps_fingerprint().items() if key not in REPLACED}
    for key in ("pretrain_network_g", "pretrain_network_d"):
        path = getattr(preset, key)
        facts[key] = weights_identity(Path(path)) if path and Path(path).is_file() else ""
    return facts | {
        "seed": job.seed,
        "crops per step": job.total_batch,
        "crop": preset.lq_px,
        "pictures": pairs_fingerprint(job.pairs.pairs),
    }
