"""A whole base model as one dictionary of tensors: from the layout of the original checkpoints and back.

Between the two stand the parts: for each of `unet`, `vae`, `text_encoder` and `text_encoder_2` the tensors under the
names of diffusers and transformers, text encoders without `text_model.` (see `clip_keys`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from lora_trainer.models.base_configs import Configs, Kind
from lora_trainer.models.clip_keys import TEXT_MODEL, from_open_clip, to_open_clip, without_text_model
from lora_trainer.models.ldm_keys import (
    UNET_PREFIX,
    VAE_PREFIX,
    unet_module_map,
    vae_attention_modules,
    vae_module_map,
)

State = dict[str, Tensor]
Parts = dict[str, State]


class TextPart(NamedTuple):
    """Where a text encoder is in a checkpoint, in which layout, and whether its pooled vector is projected."""

    name: str
    prefix: str
    open_clip: bool
    projection: bool = False

    @property
    def tokenizer(self) -> str:
        """The subfolder of a diffusers folder."""
        return self.name.replace("text_encoder", "tokenizer")


TEXT_PARTS: dict[Kind, tuple[TextPart, ...]] = {
    "sd15": (TextPart("text_encoder", "cond_stage_model.transformer.", open_clip=False),),
    "sd21": (TextPart("text_encoder", "cond_stage_model.model.", open_clip=True),),
    "sdxl": (
        TextPart("text_encoder", "conditioner.embedders.0.transformer.", open_clip=False),
        TextPart("text_encoder_2", "conditioner.embedders.1.model.", open_clip=True, projection=True),
    ),
}

# What is found inside the parts' prefixes and belongs to no model: buffers of older transformers, training leftovers.
_CLIP_LEFTOVERS = ("embeddings.position_ids", "logit_scale", "text_projection")
_VAE_LEFTOVERS = ("loss.", "model_ema.")


def to_diffusers(kind: Kind, configs: Configs, state: Mapping[str, Tensor]) -> Parts:
    """Split a checkpoint into parts. Tensors outside the parts (EMA, noise schedule) are left out.

    A name that the layout does not know keeps its place in its part, so that strict loading reports it.
    """
    unet = {theirs: ours for ours, theirs in unet_module_map(configs["unet"]).items()}
    parts = {
        "unet": _renamed(_below(state, UNET_PREFIX), unet),
        "vae": vae_to_diffusers(configs["vae"], _below(state, VAE_PREFIX)),
    }
    for part in TEXT_PARTS[kind]:
        below = _below(state, part.prefix)
        layers = configs[part.name]["num_hidden_layers"]
        parts[part.name] = from_open_clip(below, layers, projection=part.projection) if part.open_clip else _clip(below)
    return parts


def to_ldm(kind: Kind, configs: Configs, parts: Mapping[str, Mapping[str, Tensor]]) -> State:
    """The checkpoint's tensors from the models' `state_dict()`s; either spelling of the text encoders will do."""
    state = _above(UNET_PREFIX, _renamed(parts["unet"], unet_module_map(configs["unet"])))
    state |= _above(VAE_PREFIX, vae_to_ldm(configs["vae"], parts["vae"]))
    for part in TEXT_PARTS[kind]:
        names = without_text_model(parts[part.name])
        if part.open_clip:
            layers = configs[part.name]["num_hidden_layers"]
            state |= _above(part.prefix, to_open_clip(names, layers, unused_layer=kind == "sd21"))
        else:
            state |= _above(part.prefix + TEXT_MODEL, names)
    return state


def vae_to_diffusers(vae_config: Mapping[str, Any], state: Mapping[str, Tensor]) -> State:
    """The VAE's tensors from LDM names without prefix; attention loses the two dimensions of its 1x1 kernels."""
    attention = vae_attention_modules(vae_config)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(_VAE_LEFTOVERS)}
    flat = _reshaped(kept, attention, lambda weight: weight.flatten(1))
    return _renamed(flat, {theirs: ours for ours, theirs in vae_module_map(vae_config).items()})


def vae_to_ldm(vae_config: Mapping[str, Any], state: Mapping[str, Tensor]) -> State:
    """The way back: LDM names without prefix, attention weights as (out, in, 1, 1)."""
    renamed = _renamed(state, vae_module_map(vae_config))
    return _reshaped(renamed, vae_attention_modules(vae_config), lambda weight: weight[:, :, None, None])


def _clip(state: Mapping[str, Tensor]) -> State:
    names = without_text_model(state)
    return {name: tensor for name, tensor in names.items() if not name.startswith(_CLIP_LEFTOVERS)}


def _renamed(state: Mapping[str, Tensor], modules: Mapping[str, str]) -> State:
    found: State = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        found[f"{modules[module]}.{leaf}" if module in modules else name] = tensor
    return found


def _reshaped(state: Mapping[str, Tensor], modules: frozenset[str], change: Callable[[Tensor], Tensor]) -> State:
    """Change the weights of these modules."""
    names = {f"{module}.weight" for module in modules}
    return {name: change(tensor) if name in names else tensor for name, tensor in state.items()}


def _below(state: Mapping[str, Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _above(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}
