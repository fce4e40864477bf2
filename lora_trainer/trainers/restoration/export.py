"""The LoRA's files, called as HYPIR's: folders checkpoint-500 with state_dict.pth and its average, and a last one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lora_trainer import __version__, atomic
from lora_trainer.config.restoration import RestorationPreset
from lora_trainer.engine.ema import Ema
from lora_trainer.engine.kept_files import Names
from lora_trainer.models.restoration.checkpoint import lora_state, write_restorer
from lora_trainer.models.restoration.file_names import AVERAGED, PLAIN

FOLDER = "checkpoint-"
SUFFIX = ".safetensors"


class HypirNames(Names):
    """`checkpoint-500` on the way; the run's name at the end."""

    def after_epoch(self, name: str, epoch: int, done: int) -> str:
        return f"{FOLDER}{done}"

    def after_step(self, name: str, epoch: int, done: int) -> str:
        return f"{FOLDER}{done}"

    def file(self, stem: str, suffix: str) -> str:
        return stem if stem.startswith(FOLDER) else stem + suffix

    def by_epochs(self, name: str) -> str:
        return self.by_steps(name)

    def by_steps(self, name: str) -> str:
        return rf"{FOLDER}\d+"


HYPIR_NAMES = HypirNames()


@dataclass(frozen=True)
class RestorerFiles:
    """How the LoRA in a UNet is written. `facts` go into the .safetensors files, for whoever restores with them."""

    unet: nn.Module
    ema: Ema | None
    facts: Mapping[str, str]

    def write(self, stem: Path, done: int) -> Path:
        """The folder of this name with the LoRA and its average, or a .pth and a .safetensors of what is validated."""
        if not stem.name.startswith(FOLDER):
            return self._write(stem.parent, stem.name, done, averaged=True)
        if stem.exists():  # of the same moment, before the run was broken off
            atomic.remove_folder(stem)
        with atomic.staged_folder(stem) as folder:
            self._write(folder, PLAIN, done)
            if self.ema is not None:
                self._write(folder, AVERAGED, done, averaged=True)
        return stem

    def _write(self, folder: Path, name: str, done: int, averaged: bool = False) -> Path:
        facts = {**self.facts, "steps": str(done), "averaged": str(averaged and self.ema is not None).lower()}
        if averaged and self.ema is not None:
            with self.ema.swapped():
                state = lora_state(self.unet)
        else:
            state = lora_state(self.unet)
        return write_restorer(folder, state, name, facts)[1]


def restorer_facts(preset: RestorationPreset, prediction: str) -> dict[str, str]:
    """What inference has to know, and what a person may want to."""
    values: dict[str, Any] = {
        "trainer": "restoration",
        "version": __version__,
        "base_model": Path(preset.base_model_path).name,
        "model_t": preset.model_t,
        "coeff_t": preset.coeff_t,
        "prediction": prediction,
        "lora_rank": preset.lora_rank,
        "lora_modules": preset.lora_modules,
        "out_size": preset.out_size,
        "prompt": preset.val_prompt,
        "colour_fix": "wavelet" if preset.high_order_degradation else "none",  # pairs may be about colours: haze, night
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
