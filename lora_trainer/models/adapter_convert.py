"""LoRA files between the names of kohya and those of diffusers, both ways and without loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_delta import without_tucker
from lora_trainer.models.adapter_file import AdapterFile, FileLayer, in_kohya_names
from lora_trainer.models.adapter_names import (
    ALPHA,
    DORA,
    DOWN,
    MID,
    PEFT_CONFIG,
    UP,
    diffusers_layer,
    layer_places,
    peft_config,
)
from lora_trainer.models.base_configs import Kind

ALPHA_DTYPE = (
    "lora_trainer.alpha_dtype"  # metadata: what the tensors of alpha were, where it is not what the others are
)
NO_ALPHA = "none"


def to_kohya(file: AdapterFile, kind: Kind) -> tuple[dict[str, FileLayer], dict[str, str]]:
    """The layers under kohya's names, SDXL's in the layout of the original checkpoint. Raises Refusal for others."""
    _refuse_unknown(file, kind)
    word = file.metadata.get(ALPHA_DTYPE, "")
    layers = {}
    for name, layer in in_kohya_names(file, kind).layers.items():
        tensors = dict(layer.tensors)
        if DORA in tensors and file.naming == "diffusers":
            up = tensors[UP]
            tensors[DORA] = tensors[DORA].reshape(up.shape[0], *(1,) * (up.dim() - 1))
        if word == NO_ALPHA:
            tensors.pop(ALPHA, None)
        elif word and ALPHA in tensors:
            tensors[ALPHA] = torch.tensor(float(layer.tensors[ALPHA]), dtype=getattr(torch, word))
        layers[name] = replace(layer, tensors=tensors)
    return layers, {
        key: value for key, value in file.metadata.items() if key not in (PEFT_CONFIG, ALPHA_DTYPE, "format")
    }


def to_diffusers(file: AdapterFile, kind: Kind) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A file's tensors and metadata as `load_lora_weights` of diffusers takes them.

    Raises Refusal for names that are unknown, and for kinds that diffusers does not load.
    """
    _refuse_unknown(file, kind)
    strange = {layer.words: name for name, layer in file.layers.items() if set(layer.tensors) - _IN_DIFFUSERS}
    if strange:
        raise Refusal(
            *(
                f"{file.path}: {name} is a {words}, which diffusers does not load; "
                "make a LoRA of it with merge_lora --rank"
                for words, name in strange.items()
            )
        )
    if by_input := [name for name, layer in file.layers.items() if layer.dora and not _by_output(layer)]:
        raise Refusal(
            f"{file.path}: {by_input[0]} is a DoRA with one length for each input, and diffusers knows only those for "
            "each output; use the file with the programs that it was made for"
        )
    places = layer_places(kind)
    layers = {diffusers_layer(places[name]): without_tucker(layer) for name, layer in file.layers.items()}
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        tensors[f"{name}.lora_A.weight"] = layer.tensors[DOWN]
        tensors[f"{name}.lora_B.weight"] = layer.tensors[UP]
        if layer.dora:
            lengths = layer.tensors[DORA].flatten()
            wide = layer.tensors[UP].dim() > 2
            tensors[f"{name}.lora_magnitude_vector"] = lengths.reshape(1, -1, 1, 1) if wide else lengths
    ranks = {name: layer.rank or 1 for name, layer in layers.items()}
    alphas = {name: float(ranks[name]) if layer.alpha is None else layer.alpha for name, layer in layers.items()}
    dora = any(layer.dora for layer in layers.values())
    metadata = {**file.metadata, "format": "pt", PEFT_CONFIG: peft_config(ranks, alphas, dora)}
    if word := _alpha_word(file.layers):
        metadata[ALPHA_DTYPE] = word
    return tensors, metadata


_IN_DIFFUSERS = {UP, DOWN, MID, ALPHA, DORA}


def _by_output(layer: FileLayer) -> bool:
    lengths, outputs = layer.tensors[DORA], layer.tensors[UP].shape[0]
    return lengths.shape[0] == outputs and lengths.numel() == outputs


def _alpha_word(layers: Mapping[str, FileLayer]) -> str:
    """How to make the tensors of alpha again, where they are not of the precision of the others."""
    if all(ALPHA not in layer.tensors for layer in layers.values()):
        return NO_ALPHA
    odd = {
        str(layer.tensors[ALPHA].dtype).removeprefix("torch.")
        for layer in layers.values()
        if ALPHA in layer.tensors and layer.tensors[ALPHA].dtype != layer.tensors[DOWN].dtype
    }
    return odd.pop() if len(odd) == 1 else ""


def _refuse_unknown(file: AdapterFile, kind: Kind) -> None:
    places = layer_places(kind)
    if unknown := [name for name in file.layers if name not in places]:
        raise Refusal(
            f"{file.path}: {len(unknown)} of {len(file.layers)} layers have names that no {kind} model has, "
            f"for example {unknown[0]}; say for which base model the file is (--base)"
        )
