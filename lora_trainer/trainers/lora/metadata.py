"""What a LoRA file says about its training, taken from the job."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from lora_trainer.data.subsets import REGULARISATION, Subset
from lora_trainer.data.survey import Sample, summarize
from lora_trainer.data.tag_frequency import tag_frequency
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.kohya_metadata import (
    BaseFacts,
    ClockFacts,
    DataFacts,
    FolderFacts,
    ProgressFacts,
    least_metadata,
    lora_metadata,
    model_hashes,
)
from lora_trainer.trainers.lora.job import LoraJob
from lora_trainer.trainers.lora.network import network_arguments
from lora_trainer.trainers.lora.schedule import warmup_steps

# sd-scripts writes None where these are off
NONE_WHEN_OFF = (
    "adaptive_noise_scale", "ip_noise_gamma", "min_snr_gamma", "multires_noise_iterations", "network_dropout",
    "noise_offset", "scale_weight_norms",
)  # fmt: skip

# sd-scripts' modules by LoRA_type; LyCORIS has one for all of its types
NETWORK_MODULES = {
    "Standard": "networks.lora",
    "Kohya LoCon": "networks.lora",
    "LoRA-FA": "networks.lora_fa",
    "Kohya DyLoRA": "networks.dylora",
}


@dataclass
class LoraFacts:
    """The facts that stay the same for all files of a run; hashing the base model happens once."""

    job: LoraJob
    base: BaseModel

    def metadata(self, done: int, total_steps: int, steps_per_epoch: int) -> dict[str, str]:
        progress = ProgressFacts(
            epoch=-(-done // steps_per_epoch),
            step=done,
            epochs=-(-total_steps // steps_per_epoch),
            batches_per_epoch=steps_per_epoch,
            total_batch_size=self.job.total_batch,
        )
        settings = self._settings | {"max_train_steps": total_steps}
        settings["lr_warmup_steps"] = warmup_steps(self.job.preset, total_steps)
        found = lora_metadata(self._base, self._data, progress, settings, clock())
        return least_metadata(found) if self.job.preset.no_metadata else found

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """The preset's values, with what was trained with in place of what was written: rates, seed, number format."""
        preset = self.job.preset
        values = {
            name: None if name in NONE_WHEN_OFF and not value else value
            for name, value in vars(preset).items()
            if not isinstance(value, SecretStr) and value != ""
        }
        return values | {
            "seed": self.job.seed,
            "mixed_precision": self.job.fingerprint["mixed_precision"],
            "learning_rate": preset.unet_rate or preset.text_encoder_rate,
            "unet_lr": preset.unet_rate,
            "text_encoder_lr": preset.text_encoder_rate,
            "network_alpha": preset.effective_network_alpha,
            "zero_terminal_snr": self.base.zero_terminal_snr,
            "network_module": NETWORK_MODULES.get(preset.LoRA_type, "lycoris.kohya"),
            "network_args": network_arguments(preset),
        }

    @cached_property
    def _base(self) -> BaseFacts:
        path = self.job.checkpoint.path
        vae = Path(self.job.preset.vae) if self.job.preset.vae else None
        return BaseFacts(
            self.base.kind,
            self.base.prediction == "v_prediction",
            path,
            model_hashes(path),
            vae,
            model_hashes(vae) if vae else None,
        )

    @cached_property
    def _data(self) -> DataFacts:
        job = self.job
        trained = [sample for sample in job.samples if not sample.is_reg]
        known = [  # with the repeats that they were given, as in sd-scripts' files
            replace(sample, repeats=job.subsets[sample.subset].num_repeats) for sample in job.samples if sample.is_reg
        ]
        summary = job.summary
        described = json.dumps([_described(job, number) for number in range(len(job.sets))])
        return DataFacts(
            job.sets[0].buckets.resolution_px, _folders(trained), summary.uses_in, _folders(known),
            summary.mean_aspect_error, len(job.held_out),
            described if job.preset.dataset_config else "",
        )  # fmt: skip


def _folders(samples: Sequence[Sample]) -> dict[str, FolderFacts]:
    summary, tags = summarize(samples), tag_frequency(samples)
    return {
        name.removeprefix(REGULARISATION): FolderFacts(summary.repeats_of[name], count, tags.get(name, {}))
        for name, count in summary.pictures_in.items()
    }


def _described(job: LoraJob, number: int) -> dict[str, Any]:
    """A data set of a dataset_config, by the words of sd-scripts' ss_datasets."""
    data_set = job.sets[number]
    samples = [sample for sample in job.samples if job.subsets[sample.subset].dataset == number]
    summary = summarize(samples)
    height, width = data_set.buckets.resolution_px
    buckets = [
        {"resolution": [columns, rows], "count": count} for (rows, columns), count in sorted(summary.uses_in.items())
    ]
    uses = {
        is_reg: sum(
            subset.num_repeats * summary.pictures_in.get(subset.name, 0)
            for subset in data_set.subsets
            if subset.is_reg == is_reg
        )
        for is_reg in (False, True)
    }
    return {
        "is_dreambooth": not any(subset.metadata_file for subset in data_set.subsets),
        "batch_size_per_device": data_set.batch_size,
        "num_train_images": uses[False],
        "num_reg_images": uses[True],
        "resolution": [width, height],
        "enable_bucket": data_set.buckets.enabled,
        "min_bucket_reso": data_set.buckets.min_reso_px,
        "max_bucket_reso": data_set.buckets.max_reso_px,
        "tag_frequency": tag_frequency(sample for sample in samples if not sample.is_reg),
        "bucket_info": {
            "buckets": {str(index): bucket for index, bucket in enumerate(buckets)},
            "mean_img_ar_error": summary.mean_aspect_error,
        },
        "subsets": [_folder(subset, summary.pictures_in.get(subset.name, 0)) for subset in data_set.subsets],
    }


def _folder(subset: Subset, pictures: int) -> dict[str, Any]:
    captions = subset.captions
    file = subset.metadata_file
    return {
        "img_count": pictures,
        "num_repeats": subset.num_repeats,
        "color_aug": subset.color_aug,
        "flip_aug": subset.flip_aug,
        "random_crop": subset.random_crop,
        "shuffle_caption": captions.shuffle_caption,
        "keep_tokens": captions.keep_tokens,
        "keep_tokens_separator": captions.keep_tokens_separator or None,
        "secondary_separator": captions.secondary_separator or None,
        "enable_wildcard": captions.enable_wildcard,
        "caption_prefix": captions.caption_prefix or None,
        "caption_suffix": captions.caption_suffix or None,
        "image_dir": subset.image_dir.resolve().name,
        **({"metadata_file": file.name} if file else {"class_tokens": subset.class_tokens or None}),
        "is_reg": subset.is_reg,
    }


def clock() -> ClockFacts | None:
    """Dates go into a file only from SOURCE_DATE_EPOCH: a resumed run writes the bytes of an undisturbed one."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    return ClockFacts(float(fixed), float(fixed), 0) if fixed else None
