"""The tensors of CLIP's text encoder in the transformers layout and in OpenCLIP's.

transformers 5.6 removed the level `text_model.` from CLIPTextModel and left it in CLIPTextModelWithProjection. Names
here are without it; `without_text_model` brings either spelling to that form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]

TEXT_MODEL = "text_model."

_OUTSIDE_LAYERS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_IN_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_STACKED = ("q_proj", "k_proj", "v_proj")  # OpenCLIP keeps the three in one tensor, in this order
_OPEN_CLIP_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)$")
_PROJECTION = "text_projection.weight"
_LOGIT_SCALE = math.log(100.0)  # where OpenCLIP clamps it; no diffusion model reads it


def without_text_model(state: Mapping[str, Tensor]) -> State:
    return {name.removeprefix(TEXT_MODEL): tensor for name, tensor in state.items()}


def from_open_clip(state: Mapping[str, Tensor], layers: int, *, projection: bool) -> State:
    """Tensors in the transformers layout, without `text_model.`; q, k and v are views of the stacked tensors.

    Layers from `layers` on are left out: Stable Diffusion 2 stops one before the last. With `projection` the text
    projection is kept, transposed. A name that OpenCLIP does not have comes out unchanged.
    """
    outside = {theirs: ours for ours, theirs in _OUTSIDE_LAYERS.items()}
    found: State = {}
    for name, tensor in state.items():
        layer = _OPEN_CLIP_LAYER.match(name)
        if layer is not None:
            if int(layer[1]) < layers:
                found.update(_from_open_clip_layer(int(layer[1]), layer[2], layer[3], tensor))
        elif name == "text_projection":
            if projection:
                found[_PROJECTION] = tensor.T.contiguous()
        elif name != "logit_scale":
            found[outside.get(name, name)] = tensor
    return found


def _from_open_clip_layer(layer: int, module: str, leaf: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    ours = f"encoder.layers.{layer}"
    if module == "attn.in_proj":
        for name, part in zip(_STACKED, tensor.chunk(3), strict=True):
            yield f"{ours}.self_attn.{name}.{leaf}", part
        return
    back = {theirs: name for name, theirs in _IN_LAYER.items()}
    yield f"{ours}.{back.get(module, module)}.{leaf}", tensor


def to_open_clip(state: Mapping[str, Tensor], layers: int, *, unused_layer: bool) -> State:
    """Tensors in OpenCLIP's layout from names without `text_model.`, complete enough for other programs to load.

    `unused_layer` appends the layer that Stable Diffusion 2 has in its file and never runs, as an identity: its two
    output projections are zero. Where there is no text projection it is the identity as well.
    """
    found = {theirs: state[ours] for ours, theirs in _OUTSIDE_LAYERS.items()}
    for layer in range(layers):
        found.update(_to_open_clip_layer(state, layer))
    if unused_layer:
        last = f"transformer.resblocks.{layers - 1}."
        for name in [name for name in found if name.startswith(last)]:
            leaf = name.removeprefix(last)
            silent = leaf.startswith(("attn.out_proj.", "mlp.c_proj."))
            tensor = torch.zeros_like(found[name]) if silent else found[name].clone()
            found[f"transformer.resblocks.{layers}.{leaf}"] = tensor
    tokens = found["token_embedding.weight"]
    projection = state.get(_PROJECTION)
    found["text_projection"] = (
        torch.eye(tokens.shape[1], dtype=tokens.dtype) if projection is None else projection.T.contiguous()
    )
    found["logit_scale"] = torch.tensor(_LOGIT_SCALE, dtype=tokens.dtype)
    return found


def _to_open_clip_layer(state: Mapping[str, Tensor], layer: int) -> Iterator[tuple[str, Tensor]]:
    ours, theirs = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
    for leaf in ("weight", "bias"):
        yield (
            f"{theirs}.attn.in_proj_{leaf}",
            torch.cat([state[f"{ours}.self_attn.{name}.{leaf}"] for name in _STACKED]),
        )
        for name, other in _IN_LAYER.items():
            yield f"{theirs}.{other}.{leaf}", state[f"{ours}.{name}.{leaf}"]
