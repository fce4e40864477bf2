"""Writing a base model as one file in the layout that every other program reads."""

from __future__ import annotations

import contextlib
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lora_trainer.atomic import staged_file
from lora_trainer.models.base_configs import (
    CONFIGS_KEY,
    Configs,
    Kind,
    configs_to_metadata,
    published_configs,
)
from lora_trainer.models.checkpoint import Prediction
from lora_trainer.models.clip_keys import TEXT_MODEL
from lora_trainer.models.ldm_checkpoint import TEXT_PARTS, State, to_ldm
from lora_trainer.models.ldm_keys import UNET_PREFIX
from lora_trainer.models.tensor_files import TensorFile, cast_to, open_tensors, write_tensor_file

if TYPE_CHECKING:
    from lora_trainer.models.base_model import BaseModel

SAFETENSORS, CKPT = ".safetensors", ".ckpt"
EMA = "model_ema."

_ARCHITECTURES: dict[tuple[Kind, Prediction], str] = {
    ("sd15", "epsilon"): "stable-diffusion-v1",
    ("sd15", "v_prediction"): "stable-diffusion-v1",
    ("sd21", "epsilon"): "stable-diffusion-v2-512",
    ("sd21", "v_prediction"): "stable-diffusion-v2-768-v",
    ("sdxl", "epsilon"): "stable-diffusion-xl-v1-base",
    ("sdxl", "v_prediction"): "stable-diffusion-xl-v1-base",
}
_MODELSPEC_WORDS: dict[Prediction, str] = {"epsilon": "epsilon", "v_prediction": "v"}
_TEXT_SIZES = ("hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "intermediate_size")
_SIZES = (  # what differs between a model and the published one of its kind when it is built otherwise
    ("unet", (
        "block_out_channels", "layers_per_block", "cross_attention_dim", "down_block_types", "up_block_types",
        "transformer_layers_per_block", "attention_head_dim", "norm_num_groups", "addition_time_embed_dim",
    )),
    ("vae", ("block_out_channels", "layers_per_block", "norm_num_groups", "mid_block_add_attention")),
    ("text_encoder", _TEXT_SIZES),
    ("text_encoder_2", _TEXT_SIZES),
)  # fmt: skip
_UNSAID = {"mid_block_add_attention": True, "transformer_layers_per_block": 1}  # diffusers' defaults


def live_tensors(base: BaseModel) -> State:
    """All tensors of the checkpoint, as they are in the models.

    An SDXL model that predicts v carries the empty tensors `v_pred` and `ztsnr`, by which ComfyUI knows it.
    """
    models: dict[str, Any] = {"unet": base.unet, "vae": base.vae}
    models |= {part.name: model for part, model in zip(TEXT_PARTS[base.kind], base.text_encoders, strict=True)}
    tensors = to_ldm(base.kind, base.configs, {part: model.state_dict() for part, model in models.items()})
    if base.kind == "sdxl" and base.prediction == "v_prediction":
        marks = ["v_pred", "ztsnr"] if base.zero_terminal_snr else ["v_pred"]
        tensors |= {mark: torch.empty(0) for mark in marks}
    return tensors


def base_tensors(base: BaseModel, dtype: torch.dtype) -> State:
    """All tensors of the checkpoint on the CPU, contiguous and cast."""
    return {name: cast_to(tensor, dtype) for name, tensor in live_tensors(base).items()}


def base_metadata(base: BaseModel) -> dict[str, str]:
    """What the model is and what it predicts; the configurations too where the sizes are not the published ones."""
    metadata = {
        "modelspec.architecture": _ARCHITECTURES[base.kind, base.prediction],
        "modelspec.prediction_type": _MODELSPEC_WORDS[base.prediction],
    }
    if not _has_published_sizes(base.kind, base.configs):
        metadata[CONFIGS_KEY] = configs_to_metadata(base.kind, base.configs)
    return metadata


def write_base_file(path: Path, base: BaseModel, dtype: torch.dtype, source: Path | None = None) -> None:
    """Write .safetensors (the same model gives the same bytes) or .ckpt, by the path's suffix.

    The tensors are cast and written one by one, so that no second copy of the model is in memory. With a `source`, a
    single file, the result has its names: see `like_source`.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_tensors(source)) if source is not None else None
        tensors = live_tensors(base)
        if file is not None:
            tensors = like_source(tensors, file)
        metadata = base_metadata(base)
        if path.suffix == CKPT:
            with staged_file(path) as staged:
                torch.save({"state_dict": {name: cast_to(t, dtype) for name, t in tensors.items()}, **metadata}, staged)
            return
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        dtypes = {name: dtype if tensor.is_floating_point() else tensor.dtype for name, tensor in tensors.items()}
        write_tensor_file(path, shapes, dtypes, lambda name: cast_to(tensors[name], dtype), metadata)


def like_source(tensors: State, source: TensorFile) -> State:
    """The tensors under the names of the file that the model came from, with what else stands in it.

    Text encoders are spelt as there. A moving average of the UNet (`model_ema.`) is given the UNet's own weights, since
    the old one belongs to others; noise schedules, position numbers and marks are taken over.
    """
    spelt = {name: _spelling(name, source.shapes) for name in tensors}
    found = {spelt[name]: tensor for name, tensor in tensors.items()}
    averaged = {f"{EMA}{_flat(name)}": t for name, t in tensors.items() if name.startswith(UNET_PREFIX)}
    for name in source.shapes:
        if name not in found:
            found[name] = averaged[name] if name in averaged else source.read(name)
    return found


def _spelling(name: str, known: Container[str]) -> str:
    """Checkpoints from before 2023 have text encoders without the level `text_model`."""
    older = name.replace(TEXT_MODEL, "", 1)
    return older if name not in known and older in known else name


def _flat(name: str) -> str:
    """How the original trainer names an average: `diffusion_modelinput_blocks00weight`."""
    return name.removeprefix("model.").replace(".", "")


def _has_published_sizes(kind: Kind, configs: Configs) -> bool:
    """A key that a configuration leaves out is as published: older ones lack some."""
    published = published_configs(kind)
    for part, keys in _SIZES:
        for key in keys if part in published else ():
            usual = published[part].get(key, _UNSAID.get(key))
            if _listed(configs[part].get(key, usual)) != _listed(usual):
                return False
    return True


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
