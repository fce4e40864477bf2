"""The configurations of a new model: what is given over what was published, what follows from it, what does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lora_trainer.models.base_configs import Kind, published_configs

VAE_FACTOR = 8  # pixels of a latent pixel's side
VAE_BLOCKS = 4  # each but the last halves the sides
VOCABULARY = (514, 49408)  # of `tokenizers.clip_tokenizer`
WIDEST_HEAD = 64
MOST_GROUPS = 32
SIZE_NUMBERS = 6  # that SDXL is told: original size, crop, target size
_KNOWN_WIDTHS: Mapping[int, Kind] = {768: "sd15", 1024: "sd21"}  # by which folders are told apart

Part = Mapping[str, Any]
Parts = Mapping[str, Part]
Configs = dict[str, dict[str, Any]]


def fresh_configs(kind: Kind, given: Parts, resolution: int | None) -> Configs:
    """The parts' configurations; ``resolution`` is the side of the pictures that the model is for."""
    configs = published_configs(kind)
    texts = [part for part in configs if part.startswith("text_encoder")]
    shared = {key: value for key, value in given.get("text_encoder", {}).items() if key == "vocab_size"}
    for part in texts:
        own = {**shared, **given.get(part, {})}
        configs[part] |= _of_text(own, published=configs[part], pads_with_zero=part == texts[-1] and kind != "sd15")
    of_vae, of_unet = given.get("vae", {}), given.get("unet", {})
    configs["vae"] |= {**_groups(of_vae), **_side(resolution, 1), **of_vae}
    of_blocks = _of_blocks(kind, of_unet, configs["unet"])
    configs["unet"] |= {**_groups(of_unet), **of_blocks, **_side(resolution, VAE_FACTOR), **of_unet}
    configs["unet"] |= _of_both(kind, configs)
    return configs


def misfits(kind: Kind, given: Parts, configs: Configs) -> Iterator[str]:
    """A sentence for each thing that does not go together, without the file's name."""
    for part in (name for name in configs if name.startswith("text_encoder")):
        yield from _text_misfits(kind, part, configs[part])
    for key, needed in _of_both(kind, configs).items():
        written = given.get("unet", {}).get(key, needed)
        if written != needed:
            yield f"unet.{key}: {written} must be {needed}, by the text encoders' widths; leave it out"
    yield from _block_misfits(configs["unet"])
    for part in ("unet", "vae"):
        groups = configs[part]["norm_num_groups"]
        if odd := [width for width in configs[part]["block_out_channels"] if width % groups]:
            yield f"{part}.norm_num_groups: {groups} does not divide {odd[0]} of block_out_channels; leave it out"
    if (blocks := len(configs["vae"]["block_out_channels"])) != VAE_BLOCKS:
        yield (
            f"vae.block_out_channels: {blocks} numbers; write {VAE_BLOCKS}, as latents are {VAE_FACTOR} times smaller "
            "than pictures"
        )


# ------------------------------------------------------------------------------------------------------- what follows


def _of_text(given: Part, published: Part, pads_with_zero: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if width := given.get("hidden_size"):
        found = {
            "intermediate_size": 4 * width,
            "num_attention_heads": width // _head_width([width]),
            "projection_dim": width,
        }
    vocabulary = given.get("vocab_size", published["vocab_size"])
    ids = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1}
    return {**found, **ids, "pad_token_id": 0 if pads_with_zero else vocabulary - 1, **given}


def _of_blocks(kind: Kind, given: Part, published: Part) -> dict[str, Any]:
    found: dict[str, Any] = {}
    widths: Sequence[int] = given.get("block_out_channels", published["block_out_channels"])
    if "block_out_channels" in given:
        head = _head_width(widths)
        found["attention_head_dim"] = [width // head for width in widths]
    types: list[str] = given.get("down_block_types", published["down_block_types"])
    if len(types) != len(widths) and "down_block_types" not in given:
        plain, attending = "DownBlock2D", "CrossAttnDownBlock2D"
        rest = [attending] * (len(widths) - 1)
        types = [plain, *rest] if kind == "sdxl" else [*rest, plain]
    found["down_block_types"] = types
    found["up_block_types"] = [name.replace("Down", "Up") for name in reversed(types)]
    return found


def _of_both(kind: Kind, configs: Configs) -> dict[str, int]:
    """What the UNet reads of the text encoders."""
    texts = [config for part, config in configs.items() if part.startswith("text_encoder")]
    found = {"cross_attention_dim": sum(config["hidden_size"] for config in texts)}
    if kind == "sdxl":
        sizes = SIZE_NUMBERS * configs["unet"]["addition_time_embed_dim"]
        found["projection_class_embeddings_input_dim"] = sizes + configs["text_encoder_2"]["projection_dim"]
    return found


def _groups(given: Part) -> dict[str, int]:
    """As published, 32 groups, or fewer where widths demand it; each has two channels at least."""
    if "block_out_channels" not in given:
        return {}
    common = math.gcd(*given["block_out_channels"])
    most = min(MOST_GROUPS, max(1, min(given["block_out_channels"]) // 2))
    return {"norm_num_groups": max(n for n in (1, 2, 4, 8, 16, 32) if common % n == 0 and n <= most)}


def _side(resolution: int | None, factor: int) -> dict[str, int]:
    return {} if resolution is None else {"sample_size": resolution // factor}


def _head_width(widths: Sequence[int]) -> int:
    """The widest head, a power of two up to 64, that all widths are made of."""
    common = math.gcd(*widths)
    return max(width for width in (1, 2, 4, 8, 16, 32, WIDEST_HEAD) if common % width == 0)


# ------------------------------------------------------------------------------------------------------ what must fit


def _text_misfits(kind: Kind, part: str, config: Part) -> Iterator[str]:
    width, heads, vocabulary = (config[key] for key in ("hidden_size", "num_attention_heads", "vocab_size"))
    if width % heads:
        yield f"{part}.num_attention_heads: {heads} does not divide hidden_size, {width}; leave it out"
    if not VOCABULARY[0] <= vocabulary <= VOCABULARY[1]:
        yield f"{part}.vocab_size: found {vocabulary}; write a number from {VOCABULARY[0]} to {VOCABULARY[1]}"
    known = _KNOWN_WIDTHS.get(width, kind)
    if kind != "sdxl" and known != kind:
        yield f"{part}.hidden_size: {width} is the width by which {known} is known; write another one"


def _block_misfits(config: Part) -> Iterator[str]:
    widths: Sequence[int] = config["block_out_channels"]
    per_block = (
        "down_block_types", "up_block_types", "layers_per_block", "transformer_layers_per_block", "attention_head_dim",
    )  # fmt: skip
    lists = {key: config[key] for key in per_block if isinstance(config.get(key), list)}
    wrong = {key: value for key, value in lists.items() if len(value) != len(widths)}
    for key, value in wrong.items():
        yield f"unet.{key}: {len(value)} in the list, and block_out_channels has {len(widths)}; write one for each"
    if wrong:
        return
    heads = config["attention_head_dim"]
    for place, width in enumerate(widths):
        number = heads[place] if isinstance(heads, list) else heads
        if width % number:
            yield f"unet.attention_head_dim: {number} heads do not divide {width} of block_out_channels; leave it out"
