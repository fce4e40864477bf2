"""A VAE that replaces the base model's own: a file in either layout, or a diffusers folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.architectures import build_vae
from lora_trainer.models.base_configs import configs_from_metadata
from lora_trainer.models.base_folder import load_part
from lora_trainer.models.detect_folder import read_json
from lora_trainer.models.ldm_checkpoint import State, vae_to_diffusers
from lora_trainer.models.materialise import materialise
from lora_trainer.models.state_files import read_state_file

_PREFIXES = ("first_stage_model.", "vae.", "")
_DIFFUSERS_MARK = "encoder.down_blocks.0.resnets.0.conv1.weight"
_LDM_MARK = "encoder.down.0.block.0.conv1.weight"
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # diffusers before 0.13
_OLD_ATTENTION_NAME = re.compile(rf"(\.mid_block\.attentions\.0)\.({'|'.join(_OLD_ATTENTION)})\.")


def load_vae(path: Path, config: Mapping[str, Any], dtype: torch.dtype) -> AutoencoderKL:
    """Load a VAE; `config` is the base model's and serves where the file carries none. Raises Refusal."""
    if path.is_dir():
        return _from_folder(path, dtype)
    if not path.is_file():
        raise Refusal(f"{path}: there is no such VAE; correct the path, or leave it empty for the base model's own")
    file = read_state_file(path)
    carried = configs_from_metadata(path, file.metadata)
    config = carried[1]["vae"] if carried else config
    return materialise(lambda: build_vae(config), _tensors(path, config, file.tensors), dtype, f"{path} (vae)")


def _from_folder(path: Path, dtype: torch.dtype) -> AutoencoderKL:
    place = path / "vae" if (path / "vae").is_dir() else path
    file = place / "config.json"
    if not file.is_file() or read_json(file).get("_class_name") != "AutoencoderKL":
        raise Refusal(f"{path}: this folder holds no VAE, its config.json should name AutoencoderKL; give another path")
    return load_part(AutoencoderKL, place, dtype)


def _tensors(path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> State:
    for prefix in _PREFIXES:
        state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if _LDM_MARK in state:
            return vae_to_diffusers(config, state)
        if _DIFFUSERS_MARK in state:
            return {_OLD_ATTENTION_NAME.sub(_new_name, name): tensor for name, tensor in state.items()}
    raise Refusal(f"{path}: there is no VAE in this file; give one, or leave the path empty for the base model's own")


def _new_name(match: re.Match[str]) -> str:
    return f"{match[1]}.{_OLD_ATTENTION[match[2]]}."
