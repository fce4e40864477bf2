"""The names that a module has in diffusers and in the original "LDM" checkpoints, generated from a model's config.

Every map goes from the diffusers path of a module that owns parameters to its LDM path, without the prefix of the part
(`UNET_PREFIX`, `VAE_PREFIX`). A model of any depth and width is covered; nothing is a list copied from one checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."

Config = Mapping[str, Any]  # what stands in a diffusers config.json
Pair = tuple[str, str]  # (diffusers path, LDM path)

_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_SIZE_EMBEDDING = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
_TRANSFORMER_BLOCK = (
    *(f"attn{n}.{name}" for n in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"),
)
_VAE_RESNET = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_module_map(unet_config: Config) -> dict[str, str]:
    """Module paths of a `UNet2DConditionModel`, e.g. ``down_blocks.1.resnets.0.conv1 -> input_blocks.4.0.in_layers.2``.

    Covers the block types of Stable Diffusion 1, 2 and XL, with any number of blocks, layers and transformer depth.
    """
    pairs = list(_UNET_ENDS.items())
    if unet_config.get("addition_embed_type") == "text_time":
        pairs += _UNET_SIZE_EMBEDDING.items()
    pairs += _unet_down(unet_config)
    pairs += _unet_middle(unet_config)
    pairs += _unet_up(unet_config)
    return dict(pairs)


def _unet_down(config: Config) -> Iterator[Pair]:
    widths: Sequence[int] = config["block_out_channels"]
    depths = _transformer_depths(config)
    place = 1  # input_blocks are numbered through; 0 is conv_in
    width_in = widths[0]
    for block, (kind, width) in enumerate(zip(config["down_block_types"], widths, strict=True)):
        for layer in range(_per_block(config["layers_per_block"], widths)[block]):
            ours, theirs = f"down_blocks.{block}", f"input_blocks.{place}"
            yield from _unet_resnet(f"{ours}.resnets.{layer}", f"{theirs}.0", shortcut=width_in != width)
            if "CrossAttn" in kind:
                yield from _transformer(f"{ours}.attentions.{layer}", f"{theirs}.1", depths[block])
            width_in = width
            place += 1
        if block < len(widths) - 1:
            yield f"down_blocks.{block}.downsamplers.0.conv", f"input_blocks.{place}.0.op"
            place += 1


def _unet_middle(config: Config) -> Iterator[Pair]:
    yield from _unet_resnet("mid_block.resnets.0", "middle_block.0", shortcut=False)
    yield from _transformer("mid_block.attentions.0", "middle_block.1", _transformer_depths(config)[-1])
    yield from _unet_resnet("mid_block.resnets.1", "middle_block.2", shortcut=False)


def _unet_up(config: Config) -> Iterator[Pair]:
    widths = list(reversed(config["block_out_channels"]))
    layers = list(reversed(_per_block(config["layers_per_block"], widths)))
    depths = config.get("reverse_transformer_layers_per_block") or list(reversed(_transformer_depths(config)))
    place = 0
    width_in = widths[0]
    for block, (kind, width) in enumerate(zip(config["up_block_types"], widths, strict=True)):
        width_after = widths[min(block + 1, len(widths) - 1)]
        for layer in range(layers[block] + 1):
            ours, theirs = f"up_blocks.{block}", f"output_blocks.{place}"
            width_skip = width_after if layer == layers[block] else width
            yield from _unet_resnet(f"{ours}.resnets.{layer}", f"{theirs}.0", shortcut=width_in + width_skip != width)
            if "CrossAttn" in kind:
                yield from _transformer(f"{ours}.attentions.{layer}", f"{theirs}.1", depths[block])
            width_in = width
            place += 1
        if block < len(widths) - 1:  # the upsampler shares the place of the block's last layer
            slot = 2 if "CrossAttn" in kind else 1
            yield f"up_blocks.{block}.upsamplers.0.conv", f"output_blocks.{place - 1}.{slot}.conv"


def _unet_resnet(ours: str, theirs: str, *, shortcut: bool) -> Iterator[Pair]:
    yield from _under(ours, theirs, _UNET_RESNET)
    if shortcut:
        yield f"{ours}.conv_shortcut", f"{theirs}.skip_connection"


def _transformer(ours: str, theirs: str, depth: int) -> Iterator[Pair]:
    names = ["norm", "proj_in", "proj_out"]
    names += [f"transformer_blocks.{block}.{name}" for block in range(depth) for name in _TRANSFORMER_BLOCK]
    return _under(ours, theirs, {name: name for name in names})


def vae_module_map(vae_config: Config) -> dict[str, str]:
    """Module paths of an `AutoencoderKL`, e.g. ``decoder.up_blocks.0.resnets.1.conv1 -> decoder.up.3.block.1.conv1``.

    Covers any number of blocks and layers, without attention in the blocks.
    """
    widths: list[int] = list(vae_config["block_out_channels"])
    layers: int = vae_config["layers_per_block"]
    last = len(widths) - 1
    pairs: list[Pair] = []
    for half in ("encoder", "decoder"):
        pairs += _under(half, half, {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"})
        pairs += _vae_middle(half, attention=vae_config.get("mid_block_add_attention", True))
    for block in range(last + 1):
        ours, theirs = f"encoder.down_blocks.{block}", f"encoder.down.{block}"
        pairs += _vae_layers(ours, theirs, layers, shortcut=widths[max(block - 1, 0)] != widths[block])
        ours, theirs = f"decoder.up_blocks.{block}", f"decoder.up.{last - block}"  # LDM counts from the image inwards
        place = last - block
        pairs += _vae_layers(ours, theirs, layers + 1, shortcut=widths[min(place + 1, last)] != widths[place])
        if block < last:
            pairs.append((f"encoder.down_blocks.{block}.downsamplers.0.conv", f"encoder.down.{block}.downsample.conv"))
            pairs.append((f"{ours}.upsamplers.0.conv", f"{theirs}.upsample.conv"))
    bottlenecks = {"quant_conv": "use_quant_conv", "post_quant_conv": "use_post_quant_conv"}
    pairs += [(name, name) for name, switch in bottlenecks.items() if vae_config.get(switch, True)]
    return dict(pairs)


def vae_attention_modules(vae_config: Config) -> frozenset[str]:
    """LDM paths of the VAE's attention projections, which are 1x1 convolutions there and linear layers in diffusers."""
    endings = (".q", ".k", ".v", ".proj_out")
    return frozenset(path for path in vae_module_map(vae_config).values() if path.endswith(endings))


def _vae_layers(ours: str, theirs: str, layers: int, *, shortcut: bool) -> Iterator[Pair]:
    for layer in range(layers):
        yield from _under(f"{ours}.resnets.{layer}", f"{theirs}.block.{layer}", _VAE_RESNET)
    if shortcut:  # only the first layer changes the width
        yield f"{ours}.resnets.0.conv_shortcut", f"{theirs}.block.0.nin_shortcut"


def _vae_middle(half: str, *, attention: bool) -> Iterator[Pair]:
    for layer in (0, 1):
        yield from _under(f"{half}.mid_block.resnets.{layer}", f"{half}.mid.block_{layer + 1}", _VAE_RESNET)
    if attention:
        yield from _under(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", _VAE_ATTENTION)


def _under(ours: str, theirs: str, names: Mapping[str, str]) -> Iterator[Pair]:
    return ((f"{ours}.{name}", f"{theirs}.{other}") for name, other in names.items())


def _per_block(value: int | Sequence[int], blocks: Sequence[object]) -> list[int]:
    return [value] * len(blocks) if isinstance(value, int) else list(value)


def _transformer_depths(config: Config) -> list[int]:
    return _per_block(config.get("transformer_layers_per_block", 1), config["block_out_channels"])
