"""The names that LoRA files use for layers: kohya's, which A1111, Forge, ComfyUI and diffusers understand.

A name is a prefix for the model and the layer's path with underscores for dots. Which path differs: the UNet of SDXL is
named in the layout of the original checkpoint, that of SD 1.x and 2.x in diffusers' layout, and text encoders in the
layout that transformers had before 5.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.ldm_keys import unet_module_map

Part = Literal["unet", "text_encoder", "text_encoder_2"]
T = TypeVar("T")

PREFIXES: dict[Kind, dict[Part, str]] = {
    "sd15": {"unet": "lora_unet_", "text_encoder": "lora_te_"},
    "sd21": {"unet": "lora_unet_", "text_encoder": "lora_te_"},
    "sdxl": {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"},
}


def kohya_names(kind: Kind, part: Part, module_paths: Iterable[str], unet_config: Mapping[str, Any]) -> dict[str, str]:
    """The name of each layer by its path, in the given order. The configuration is only read for SDXL's UNet."""
    prefix = PREFIXES[kind][part]
    if part != "unet":
        return {path: prefix + _flat(_with_text_model(path)) for path in module_paths}
    if kind != "sdxl":
        return {path: prefix + _flat(path) for path in module_paths}
    ldm_paths = unet_module_map(unet_config)
    return {path: prefix + _flat(ldm_paths[path]) for path in module_paths}


def _flat(path: str) -> str:
    return path.replace(".", "_")


def _with_text_model(path: str) -> str:
    """Since transformers 5.6 CLIPTextModel is without the level `text_model`, CLIPTextModelWithProjection has it."""
    return path if path.startswith("text_model.") else f"text_model.{path}"


def by_kohya_name(names: Mapping[Part, Mapping[str, str]], values: Mapping[Part, Mapping[str, T]]) -> dict[str, T]:
    """What belongs to the layers of several models (`values[part][path]`), as one table for a file."""
    return {names[part][path]: value for part, of_part in values.items() for path, value in of_part.items()}


def by_module_path(names: Mapping[Part, Mapping[str, str]], values: Mapping[str, T]) -> dict[Part, dict[str, T]]:
    """The way back from a file to `values[part][path]`. Raises Refusal for names that no layer has."""
    places = {name: (part, path) for part, of_part in names.items() for path, name in of_part.items()}
    if unknown := [name for name in values if name not in places]:
        raise Refusal(
            f"the LoRA file has {len(unknown)} layers that this base model does not have, for example {unknown[0]}; "
            "use a file that was trained on the same family of base models"
        )
    found: dict[Part, dict[str, T]] = {part: {} for part in names}
    for name, value in values.items():
        part, path = places[name]
        found[part][path] = value
    return found
