"""Which base model a single file holds, from the names and shapes of its tensors and its metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import Kind, configs_from_metadata
from lora_trainer.models.checkpoint import (
    KIND_WORDS,
    LATENT_CHANNELS,
    SUPPORTED,
    Checkpoint,
    Prediction,
    unusual_channels,
)
from lora_trainer.models.safetensors_header import Shapes

_UNET = "model.diffusion_model."
_FIRST_CONV = f"{_UNET}input_blocks.0.0.weight"
_SIZE_EMBEDDING = f"{_UNET}label_emb.0.0.weight"
_CONTEXT = re.compile(re.escape(_UNET) + r".*\.attn2\.to_k\.weight")
_TEXT_PREFIXES: dict[Kind, tuple[str, ...]] = {
    "sd15": ("cond_stage_model.transformer.",),
    "sd21": ("cond_stage_model.model.",),
    "sdxl": ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
}
_KINDS: dict[tuple[int, bool], Kind] = {  # (width of the text, embeds the image's size)
    (768, False): "sd15",
    (1024, False): "sd21",
    (2048, True): "sdxl",
}
# What other files are, by a part of a tensor's name. The first that fits is named, so the order matters.
_STRANGERS: tuple[tuple[str, str], ...] = (
    (r"\.lora_(down|up|mid|A|B)\b|\.lora\.(down|up)\.|\.hada_w[12]|\.lokr_w[12]|\.dora_scale$|\.oft_blocks$", "a LoRA"),
    (r"^(emb_params|string_to_param|clip_[lg])$", "a textual inversion embedding"),
    (r"^control_model\.|controlnet_|^zero_convs\.", "a ControlNet"),
    (r"motion_modules\.", "an AnimateDiff motion module"),
    (r"(^|\.)double_blocks\.\d", "Flux or a relative of it"),
    (r"(^|\.)joint_blocks\.\d", "Stable Diffusion 3"),
    (r"^edm_mean$", "Playground v2.5, which is trained with another noise schedule (EDM)"),
    (r"^edm_vpred\.", "a model with the EDM noise schedule"),
    (r"^conditioner\.embedders\.0\.model\.", "the refiner of Stable Diffusion XL"),
)
# What a file without a UNet is, likewise.
_FRAGMENTS: tuple[tuple[str, str], ...] = (
    (r"^(input_blocks|down_blocks)\.0\.|^diffusion_model\.", "only a UNet, without text encoders and VAE"),
    (r"(^|\.)(encoder\.down|decoder\.up|encoder\.down_blocks)\.\d", "only a VAE"),
    (r"(^|\.)(text_model\.|transformer\.resblocks\.|encoder\.layers\.)", "only a text encoder"),
)
_PREDICTIONS: dict[str, Prediction] = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}


def detect_tensors(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> Checkpoint:
    """The same from the names and shapes of a single file's tensors. Raises Refusal; the path is for its words."""
    _refuse_strangers(path, shapes)
    kind, evidence = _kind_of_tensors(path, shapes, metadata)
    missing = [prefix for prefix in _TEXT_PREFIXES[kind] if not any(name.startswith(prefix) for name in shapes)]
    if missing:
        raise Refusal(
            f"{path}: this is a {KIND_WORDS[kind]} UNet without its text encoder ({missing[0]}* is not there); "
            "give a complete checkpoint"
        )
    prediction, mark = _prediction_of_tensors(shapes, metadata)
    zero_terminal_snr = "ztsnr" in shapes
    return Checkpoint(path, "single_file", kind, prediction, zero_terminal_snr, f"{evidence}; {mark}")


def _refuse_strangers(path: Path, shapes: Shapes) -> None:
    if not shapes:
        raise Refusal(f"{path}: there are no tensors in this file; {SUPPORTED}")
    if words := _first_match(_STRANGERS, shapes):
        raise Refusal(f"{path}: this is {words}, not a base model; {SUPPORTED}")
    if not any(name.startswith(_UNET) for name in shapes):
        words = _first_match(_FRAGMENTS, shapes)
        found = f"this is {words}" if words else f"no tensor is named like a UNet's ({_UNET}*)"
        raise Refusal(f"{path}: {found}, not a base model; {SUPPORTED}")
    channels = shapes.get(_FIRST_CONV, (0, LATENT_CHANNELS))[1:2]
    if channels != (LATENT_CHANNELS,):
        raise Refusal(f"{path}: this is {unusual_channels(*channels)}; {SUPPORTED}")


def _first_match(table: tuple[tuple[str, str], ...], names: Shapes) -> str | None:
    return next((words for pattern, words in table if any(map(re.compile(pattern).search, names))), None)


def _kind_of_tensors(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> tuple[Kind, str]:
    carried = configs_from_metadata(path, metadata)
    if carried is not None:
        return carried[0], "the configurations in its metadata"
    width = next((shape[-1] for name, shape in shapes.items() if _CONTEXT.fullmatch(name) and shape), 0)
    sized = _SIZE_EMBEDDING in shapes
    kind = _KINDS.get((width, sized))
    if kind is None:
        raise Refusal(
            f"{path}: the UNet reads texts of width {width} {'with' if sized else 'without'} image sizes, "
            f"which no supported model does; {SUPPORTED}"
        )
    return kind, f"texts of width {width} in the UNet"


def _prediction_of_tensors(shapes: Shapes, metadata: Mapping[str, str]) -> tuple[Prediction | None, str]:
    named = metadata.get("modelspec.prediction_type", "")
    if named in _PREDICTIONS:
        return _PREDICTIONS[named], f"modelspec.prediction_type {named}"
    if "v_pred" in shapes:
        return "v_prediction", "the mark v_pred"
    return None, "no mark of what the UNet predicts"
