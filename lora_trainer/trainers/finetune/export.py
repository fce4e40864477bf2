"""The models that a fine-tuning writes: a diffusers folder and a single file of each."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_trainer import atomic
from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.models.base_file import write_base_file
from lora_trainer.models.base_folder import save_folder
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.checkpoint import Checkpoint
from lora_trainer.trainers.finetune.names import FOLDERS

log = logging.getLogger(__name__)

RESCALED = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
SCHEDULER = "DDIMScheduler"  # for models whose published one knows no rescaled schedule


@dataclass(frozen=True)
class ModelFiles:
    """How models are written. `source` is the single file that the model came from, whose names the new ones have."""

    dtype: torch.dtype
    suffix: str = ".safetensors"
    single_files: bool = True
    single_file_folder: Path | None = None  # None: the run's own
    source: Path | None = None

    def save(self, base: BaseModel, stem: Path) -> Path:
        """Write `ckpts/<stem>/` and `<stem>.safetensors`; gives the single file, or the folder where it is alone."""
        folder = stem.parent / FOLDERS / stem.name
        if folder.exists():  # of the same moment, before the run was broken off
            atomic.remove_folder(folder)
        with atomic.staged_folder(folder) as staged:
            save_folder(staged, base.kind, base.parts, scheduler_config(base), self.dtype)
        if not self.single_files:
            return folder
        place = self.single_file_folder or stem.parent
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{stem.name}{self.suffix}"
        write_base_file(path, base, self.dtype, self._present_source())
        return path

    def _present_source(self) -> Path | None:
        if self.source is not None and not self.source.is_file():
            log.warning("%s: is not there any more; the new file has the usual names instead of its", self.source)
            return None
        return self.source


def model_files(preset: FinetunePreset, checkpoint: Checkpoint) -> ModelFiles:
    return ModelFiles(
        torch.float32 if preset.save_full_precision else torch.float16,
        f".{preset.save_model_as}",
        not preset.no_save_ckpt,
        Path(preset.save_ckpt_dir) if preset.save_ckpt_dir else None,
        model_source(checkpoint),
    )


def model_source(checkpoint: Checkpoint) -> Path | None:
    """The single file that a model was loaded from; None for a folder."""
    return checkpoint.path if checkpoint.layout == "single_file" else None


def scheduler_config(base: BaseModel) -> dict[str, Any]:
    """The base model's own, with what it predicts and whether its last timestep is noise alone."""
    config = {**base.configs["scheduler"], "prediction_type": base.prediction}
    if base.zero_terminal_snr:
        config |= RESCALED
        if not config.get("_class_name", "").startswith(("DDIM", "Euler")):
            config["_class_name"] = SCHEDULER
    return config
