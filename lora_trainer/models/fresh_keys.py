"""What a description of a new model may say of each part, and of what kind the values are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lora_trainer.errors import did_you_mean
from lora_trainer.models.base_configs import Kind


class Value(NamedTuple):
    """What may be written for a key."""

    noun: str
    fits: Callable[[Any], bool]


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_positive(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_positive, value))


def _names(*known: str) -> Value:
    fits = lambda value: isinstance(value, list) and bool(value) and all(name in known for name in value)  # noqa: E731
    return Value(f"a list of {' and '.join(known)}", fits)


POSITIVE = Value("a whole number above 0", _is_positive)
PER_BLOCK = Value("a list of whole numbers above 0", _are_positive)
ONE_OR_PER_BLOCK = Value("a whole number above 0, or a list of them", lambda v: _is_positive(v) or _are_positive(v))
SWITCH = Value("true or false", lambda value: isinstance(value, bool))

UNET: Mapping[str, Value] = {
    "block_out_channels": PER_BLOCK,
    "layers_per_block": ONE_OR_PER_BLOCK,
    "transformer_layers_per_block": ONE_OR_PER_BLOCK,
    "attention_head_dim": ONE_OR_PER_BLOCK,  # diffusers' name for the number of heads
    "down_block_types": _names("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": _names("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": POSITIVE,
    "sample_size": POSITIVE,
    "cross_attention_dim": POSITIVE,
}
UNET_WITH_SIZES: Mapping[str, Value] = {
    **UNET,
    "addition_time_embed_dim": POSITIVE,
    "projection_class_embeddings_input_dim": POSITIVE,
}
VAE: Mapping[str, Value] = {
    "block_out_channels": PER_BLOCK,
    "layers_per_block": POSITIVE,
    "norm_num_groups": POSITIVE,
    "mid_block_add_attention": SWITCH,
    "sample_size": POSITIVE,
}
TEXT: Mapping[str, Value] = {
    "hidden_size": POSITIVE,
    "intermediate_size": POSITIVE,
    "num_hidden_layers": POSITIVE,
    "num_attention_heads": POSITIVE,
    "projection_dim": POSITIVE,
    "vocab_size": POSITIVE,
}
PARTS: Mapping[Kind, Mapping[str, Mapping[str, Value]]] = {
    "sd15": {"unet": UNET, "vae": VAE, "text_encoder": TEXT},
    "sd21": {"unet": UNET, "vae": VAE, "text_encoder": TEXT},
    "sdxl": {"unet": UNET_WITH_SIZES, "vae": VAE, "text_encoder": TEXT, "text_encoder_2": TEXT},
}
_FIXED = "is always that of the published model; remove it"
_ALWAYS: Mapping[str, str] = {  # what people would look for, and why it is no key
    **dict.fromkeys(("in_channels", "out_channels", "latent_channels", "scaling_factor", "hidden_act"), _FIXED),
    "max_position_embeddings": _FIXED,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), "follows from vocab_size; remove it"),
    "num_attention_heads": "diffusers calls the number of heads attention_head_dim; write that",
}


def problems_with_part(part: str, content: Any, known: Mapping[str, Value]) -> list[str]:
    """What is wrong with the keys of a part and their values, a sentence each without the file's name."""
    if not isinstance(content, dict):
        return [f"{part}: found {shown(content)}; write an object with what differs from the published model"]
    found = []
    for key, value in content.items():
        if key not in known:
            why = _ALWAYS.get(key) or f"unknown key{did_you_mean(key, known)}"
            found.append(f"{part}.{key}: {why}")
        elif not known[key].fits(value):
            found.append(f"{part}.{key}: found {shown(value)}; write {known[key].noun}")
    return found


def shown(value: object) -> str:
    """A value as it stands in a message."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    text = {"True": "true", "False": "false", "None": "null"}.get(text, text)
    return text if len(text) <= 60 else f"{text[:57]}..."
