"""Writing a base model as one file in the layout that every other program reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lora_trainer.atomic import write_bytes
from lora_trainer.models.base_configs import (
    CONFIGS_KEY,
    Configs,
    Kind,
    configs_to_metadata,
    published_configs,
)
from lora_trainer.models.checkpoint import Prediction
from lora_trainer.models.ldm_checkpoint import TEXT_PARTS, State, to_ldm
from lora_trainer.models.safetensors_bytes import safetensors_bytes

if TYPE_CHECKING:
    from lora_trainer.models.base_model import BaseModel

SAFETENSORS, CKPT = ".safetensors", ".ckpt"

_ARCHITECTURES: dict[tuple[Kind, Prediction], str] = {
    ("sd15", "epsilon"): "stable-diffusion-v1",
    ("sd15", "v_prediction"): "stable-diffusion-v1",
    ("sd21", "epsilon"): "stable-diffusion-v2-512",
    ("sd21", "v_prediction"): "stable-diffusion-v2-768-v",
    ("sdxl", "epsilon"): "stable-diffusion-xl-v1-base",
    ("sdxl", "v_prediction"): "stable-diffusion-xl-v1-base",
}
_MODELSPEC_WORDS: dict[Prediction, str] = {"epsilon": "epsilon", "v_prediction": "v"}
_SIZES = (  # what differs between a model and the published one of its kind when any tensor's shape differs
    ("unet", ("block_out_channels", "layers_per_block", "cross_attention_dim")),
    ("vae", ("block_out_channels", "layers_per_block")),
    ("text_encoder", ("hidden_size", "num_hidden_layers", "vocab_size")),
    ("text_encoder_2", ("hidden_size", "num_hidden_layers", "vocab_size")),
)


def base_tensors(base: BaseModel, dtype: torch.dtype) -> State:
    """All tensors of the checkpoint on the CPU, contiguous and cast.

    An SDXL model that predicts v carries the empty tensors `v_pred` and `ztsnr`, by which ComfyUI knows it.
    """
    models: dict[str, Any] = {"unet": base.unet, "vae": base.vae}
    models |= {part.name: model for part, model in zip(TEXT_PARTS[base.kind], base.text_encoders, strict=True)}
    parts = {
        part: {name: tensor.to("cpu", dtype) for name, tensor in model.state_dict().items()}
        for part, model in models.items()
    }
    tensors = {name: tensor.contiguous() for name, tensor in to_ldm(base.kind, base.configs, parts).items()}
    if base.kind == "sdxl" and base.prediction == "v_prediction":
        marks = ["v_pred", "ztsnr"] if base.zero_terminal_snr else ["v_pred"]
        tensors |= {mark: torch.empty(0) for mark in marks}
    return tensors


def base_metadata(base: BaseModel) -> dict[str, str]:
    """What the model is and what it predicts; the configurations too where the sizes are not the published ones."""
    metadata = {
        "modelspec.architecture": _ARCHITECTURES[base.kind, base.prediction],
        "modelspec.prediction_type": _MODELSPEC_WORDS[base.prediction],
    }
    if not _has_published_sizes(base.kind, base.configs):
        metadata[CONFIGS_KEY] = configs_to_metadata(base.kind, base.configs)
    return metadata


def write_base_file(path: Path, base: BaseModel, dtype: torch.dtype) -> None:
    """Write .safetensors (the same model gives the same bytes) or .ckpt, by the path's suffix."""
    tensors, metadata = base_tensors(base, dtype), base_metadata(base)
    if path.suffix == CKPT:
        buffer = io.BytesIO()
        torch.save({"state_dict": tensors, **metadata}, buffer)
        write_bytes(path, buffer.getvalue())
    else:
        write_bytes(path, safetensors_bytes(tensors, metadata))


def _has_published_sizes(kind: Kind, configs: Configs) -> bool:
    published = published_configs(kind)
    return all(
        configs[part].get(key) == published[part][key] for part, keys in _SIZES if part in published for key in keys
    )
