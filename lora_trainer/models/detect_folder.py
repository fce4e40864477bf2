"""Which base model a diffusers folder holds, from its .json files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.checkpoint import (
    KIND_WORDS,
    LATENT_CHANNELS,
    SUPPORTED,
    Checkpoint,
    Prediction,
    unusual_channels,
)

INDEX = "model_index.json"
PARTS: dict[Kind, tuple[str, ...]] = {
    "sd15": ("unet", "vae", "text_encoder"),
    "sd21": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
}
WEIGHT_SUFFIXES = (".safetensors", ".bin")

_STRANGE_PIPELINES: tuple[tuple[str, str], ...] = (
    ("Inpaint", "an inpainting model"),
    ("InstructPix2Pix", "an instruct-pix2pix model"),
    ("Flux", "Flux"),
    ("StableDiffusion3", "Stable Diffusion 3"),
    ("ControlNet", "a ControlNet pipeline"),
    ("Upscale", "an upscaler"),
)
_KIND_BY_WIDTH: dict[int, Kind] = {768: "sd15", 1024: "sd21"}
_KIND_BY_ACTIVATION: dict[str, Kind] = {"quick_gelu": "sd15", "gelu": "sd21"}  # OpenAI's CLIP, and OpenCLIP
_PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v_prediction"}


def detect_folder(folder: Path) -> Checkpoint:
    """Look at a folder in the diffusers layout. Raises Refusal for any other folder or model."""
    index = folder / INDEX
    if not index.is_file():
        raise Refusal(_no_index(folder))
    pipeline = str(read_json(index).get("_class_name", ""))
    for mark, words in _STRANGE_PIPELINES:
        if mark in pipeline:
            raise Refusal(f"{folder}: this is {words} ({pipeline} in {INDEX}); {SUPPORTED}")
    if not (folder / "unet").is_dir():
        raise Refusal(f"{folder}: {INDEX} describes {pipeline or 'nothing'}, which has no unet/; {SUPPORTED}")
    unet = read_json(folder / "unet" / "config.json")
    if unet.get("in_channels", LATENT_CHANNELS) != LATENT_CHANNELS:
        raise Refusal(f"{folder}: this is {unusual_channels(unet['in_channels'])}; {SUPPORTED}")
    kind, evidence = kind_of(folder, unet)
    if problems := _incomplete(folder, kind):
        raise Refusal(*problems)
    return _with_schedule(folder, kind, evidence)


def _no_index(folder: Path) -> str:
    files = sorted(file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".ckpt"))
    if (folder / "config.json").is_file():
        return f"{folder}: this is one part of a diffusers model; give the folder above it, the one with {INDEX}"
    if files:
        return f"{folder}: this is a folder with model files; give one of them, for example {folder / files[0]}"
    return f"{folder}: this folder is no diffusers model, there is no {INDEX} in it; {SUPPORTED}"


def kind_of(folder: Path, unet: Mapping[str, Any]) -> tuple[Kind, str]:
    """The kind by the UNet's configuration, or the text encoder's, and what it was concluded from. Raises Refusal."""
    width = unet.get("cross_attention_dim")
    if unet.get("addition_embed_type") == "text_time":
        if not (folder / "text_encoder").is_dir():
            raise Refusal(f"{folder}: this is the refiner of Stable Diffusion XL, not a base model; {SUPPORTED}")
        return "sdxl", "unet/config.json with image sizes"
    if kind := _KIND_BY_WIDTH.get(width) if isinstance(width, int) else None:
        return kind, f"texts of width {width} in unet/config.json"
    activation = read_json(folder / "text_encoder" / "config.json").get("hidden_act")
    if kind := _KIND_BY_ACTIVATION.get(str(activation)):
        return kind, f"{activation} in text_encoder/config.json"
    raise Refusal(f"{folder}: the UNet reads texts of width {width}, which no supported model does; {SUPPORTED}")


def _incomplete(folder: Path, kind: Kind) -> list[str]:
    problems = []
    for part in PARTS[kind]:
        place = folder / part
        if not (place / "config.json").is_file():
            problems.append(f"{place}: {KIND_WORDS[kind]} needs this part, and there is no config.json in it; copy it")
        elif not any(file.suffix in WEIGHT_SUFFIXES for file in place.iterdir()):
            problems.append(f"{place}: there are no weights in it ({' or '.join(WEIGHT_SUFFIXES)}); copy them")
    return problems


def _with_schedule(folder: Path, kind: Kind, evidence: str) -> Checkpoint:
    file = folder / "scheduler" / "scheduler_config.json"
    schedule = read_json(file) if file.is_file() else {}
    prediction = _PREDICTIONS.get(str(schedule.get("prediction_type")))
    mark = f"{prediction} in scheduler_config.json" if prediction else "no mark of what the UNet predicts"
    zero_terminal_snr = schedule.get("rescale_betas_zero_snr") is True
    return Checkpoint(folder, "folder", kind, prediction, zero_terminal_snr, f"{evidence}; {mark}")


def read_json(file: Path) -> dict[str, Any]:
    """One of the folder's configurations. Raises Refusal when it cannot be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refusal(f"{file}: cannot be read ({error}); copy the model's folder again") from error
    if not isinstance(content, dict):
        raise Refusal(f"{file}: this is not a configuration; copy the model's folder again")
    return content
