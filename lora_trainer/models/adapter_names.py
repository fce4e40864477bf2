"""How LoRA files name their tensors, whoever wrote them, and for which layer of a base model a name stands.

A tensor's name is its layer's name, a dot, and an ending that says what it is. In kohya's files the layer's name has
no dots (`lora_unet_down_blocks_0_...`), in those of diffusers it is a part and a path (`unet.down_blocks.0....`).
Imports no PyTorch.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from lora_trainer.models.base_configs import Kind, published_configs
from lora_trainer.models.kohya_keys import PREFIXES, Part, kohya_names
from lora_trainer.models.ldm_keys import unet_module_map

AdapterKind = Literal["lora", "loha", "lokr", "glora", "ia3", "oft", "boft", "full", "norm", "bias"]
Naming = Literal["kohya", "diffusers"]
Shape = tuple[int, ...]

DOWN, MID, UP = "lora_down.weight", "lora_mid.weight", "lora_up.weight"
ALPHA, DORA = "alpha", "dora_scale"
BIAS = "diff_b"  # the change of a layer's bias; may stand beside any kind
PEFT_CONFIG = "lora_adapter_metadata"  # where diffusers keeps rank and alpha, as JSON

WORDS: dict[AdapterKind, str] = {
    "lora": "LoRA", "loha": "LoHa", "lokr": "LoKr", "glora": "GLoRA", "ia3": "(IA)3", "oft": "OFT", "boft": "BOFT",
    "full": "full difference", "norm": "norm", "bias": "bias",
}  # fmt: skip

# The endings of each kind: those that it must have, and those that it may have.
ENDINGS: dict[AdapterKind, tuple[frozenset[str], frozenset[str]]] = {
    "lora": (frozenset({DOWN, UP}), frozenset({MID, ALPHA, DORA})),
    "loha": (
        frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
        frozenset({"hada_t1", "hada_t2", ALPHA, DORA}),
    ),
    "lokr": (
        frozenset(),
        frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", ALPHA, DORA}),
    ),
    "glora": (frozenset({"a1.weight", "a2.weight", "b1.weight", "b2.weight"}), frozenset({"bm.weight", ALPHA})),
    "ia3": (frozenset({"weight", "on_input"}), frozenset()),
    "oft": (frozenset({"oft_blocks"}), frozenset({"rescale", ALPHA})),
    "full": (frozenset({"diff"}), frozenset()),
    "norm": (frozenset({"w_norm"}), frozenset({"b_norm"})),
    "bias": (frozenset({BIAS}), frozenset()),
}  # BOFT has OFT's endings and is told by its four dimensions

_MARKS: tuple[tuple[str, AdapterKind], ...] = (  # an ending, or the start of one, by which a kind is known
    ("lora_", "lora"),
    ("hada_", "loha"),
    ("lokr_", "lokr"),
    ("a1.", "glora"),
    ("on_input", "ia3"),
    ("oft_blocks", "oft"),
    ("diff", "full"),
    ("w_norm", "norm"),
)
_PEFT = re.compile(
    r"(?P<layer>.+?)\.(?P<end>lora_A|lora_B|lora_magnitude_vector|lora(?:_linear_layer)?\.(?:down|up)|alpha)"
    r"(?:\.default(?:_\d+)?)?(?:\.weight)?"
)
_PEFT_ENDINGS = {
    "lora_A": DOWN, "lora.down": DOWN, "lora_linear_layer.down": DOWN,
    "lora_B": UP, "lora.up": UP, "lora_linear_layer.up": UP,
    "lora_magnitude_vector": DORA, "alpha": ALPHA,
}  # fmt: skip


class TensorName(NamedTuple):
    """The ending is kohya's, whatever the file calls it."""

    layer: str
    ending: str


class Place(NamedTuple):
    """A layer of a base model: the part, and the path in diffusers' layout, without `text_model.`."""

    part: Part
    path: str


def split_name(name: str) -> TensorName:
    """The layer and the ending of a tensor's name."""
    first = name.partition(".")[0]
    if first in ("unet", "text_encoder", "text_encoder_2") and (match := _PEFT.fullmatch(name)):
        return TensorName(match["layer"], _PEFT_ENDINGS[match["end"]])
    return TensorName(first, name.partition(".")[2])


def kind_of_layer(endings: Collection[str], shapes: Mapping[str, Shape]) -> AdapterKind | None:
    """What kind of adapter a layer's tensors (by ending) make, or None where they are unknown or incomplete."""
    core = set(endings) - {BIAS}
    if not core and endings:
        return "bias"
    kind = next((kind for mark, kind in _MARKS if any(ending.startswith(mark) for ending in core)), None)
    if kind is None:
        return None
    needed, possible = ENDINGS[kind]
    if not needed <= core or core - needed - possible or (kind == "lokr" and not _is_whole_lokr(core)):
        return None
    return "boft" if kind == "oft" and len(shapes["oft_blocks"]) == 4 else kind


def _is_whole_lokr(endings: Collection[str]) -> bool:
    return all(w in endings or {f"{w}_a", f"{w}_b"} <= set(endings) for w in ("lokr_w1", "lokr_w2"))


def naming_of(layers: Iterable[str]) -> Naming:
    return "diffusers" if any("." in layer for layer in layers) else "kohya"


# --------------------------------------------------------------------------------------------------- which base model

_ARCHITECTURES: tuple[tuple[str, Kind], ...] = (
    ("sdxl", "sdxl"), ("stable-diffusion-xl", "sdxl"),
    ("sd_v1", "sd15"), ("stable-diffusion-v1", "sd15"),
    ("sd_v2", "sd21"), ("stable-diffusion-v2", "sd21"),
)  # fmt: skip
_SDXL_NAME = re.compile(
    r"lora_te[12]_.*|text_encoder_2\..*|lora_unet_(input_blocks|middle_block|output_blocks)_.*"
    r"|.*down_blocks[._]2[._]attentions[._]1[._]transformer_blocks[._]9[._].*"
)
_TEXT_WIDTHS: dict[int, Kind] = {768: "sd15", 1024: "sd21", 2048: "sdxl"}
_READS_TEXT = re.compile(r".*attn2[._]to_[kv]")


def base_kind(shapes: Mapping[str, Shape], metadata: Mapping[str, str]) -> Kind | None:
    """For which family of base models a LoRA file is: by its metadata, the width of the texts, or its names."""
    for key in ("ss_base_model_version", "modelspec.architecture"):
        told = metadata.get(key, "")
        if kind := next((kind for start, kind in _ARCHITECTURES if told.startswith(start)), None):
            return kind
    names = {name: split_name(name) for name in shapes}
    widths = {
        shapes[name][1]
        for name, (layer, ending) in names.items()
        if _READS_TEXT.fullmatch(layer) and ending in (DOWN, "hada_w1_b", "diff") and len(shapes[name]) > 1
    }
    if len(widths) == 1 and (kind := _TEXT_WIDTHS.get(widths.pop())):
        return kind
    return "sdxl" if any(_SDXL_NAME.fullmatch(layer) for layer, _ in names.values()) else None


# --------------------------------------------------------------------------------------------- which layer a name means

_TEXT_LAYERS = 32  # as many as the largest text encoder has
_IN_TEXT_LAYER = (
    *(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")),
    *("mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2"),
)
_TEXT_PROJECTION = "text_projection"


def kohya_layers(kind: Kind, unet_config: Mapping[str, Any] | None = None) -> dict[Place, str]:
    """The name that kohya's files have for each layer. Without a configuration it is the published model's."""
    config = unet_config or published_configs(kind)["unet"]
    names: dict[Place, str] = {}
    for part in PREFIXES[kind]:
        paths = list(unet_module_map(config)) if part == "unet" else _text_paths()
        names |= {Place(part, path): name for path, name in kohya_names(kind, part, paths, config).items()}
    if kind == "sdxl":
        names[Place("text_encoder_2", _TEXT_PROJECTION)] = f"{PREFIXES[kind]['text_encoder_2']}{_TEXT_PROJECTION}"
    return names


def diffusers_layer(place: Place) -> str:
    """The name that diffusers' files have for a layer."""
    inside = place.part != "unet" and place.path != _TEXT_PROJECTION
    return f"{place.part}.text_model.{place.path}" if inside else f"{place.part}.{place.path}"


def layer_places(kind: Kind, unet_config: Mapping[str, Any] | None = None) -> dict[str, Place]:
    """The layer for each name that any of the usual programs may have written.

    A UNet's layers are known in both layouts, with kohya's prefix and with lycoris' own; text encoders with and
    without the level `text_model`.
    """
    config = unet_config or published_configs(kind)["unet"]
    places: dict[str, Place] = {}
    for place, name in kohya_layers(kind, config).items():
        places |= dict.fromkeys((name, diffusers_layer(place), f"{place.part}.{place.path}"), place)
        if place.part == "text_encoder":
            places |= {
                name.replace(PREFIXES[kind]["text_encoder"], prefix): place for prefix in ("lora_te_", "lora_te1_")
            }
    for path, ldm_path in unet_module_map(config).items():
        spellings = (f"lora_unet_{path}", f"lora_unet_{ldm_path}", f"lycoris_{path}")
        places |= {spelling.replace(".", "_"): Place("unet", path) for spelling in spellings}
    return places


def kernel_of(kind: Kind, path: str) -> tuple[int, ...]:
    """The sides of a layer's kernel, () for a linear one, as the published model has it."""
    name = path.rpartition(".")[2]
    if name in ("conv", "conv1", "conv2", "conv_in", "conv_out"):
        return (3, 3)
    return (1, 1) if name == "conv_shortcut" or (kind == "sd15" and name in ("proj_in", "proj_out")) else ()


def _text_paths() -> list[str]:
    inside = [f"encoder.layers.{layer}.{name}" for layer in range(_TEXT_LAYERS) for name in _IN_TEXT_LAYER]
    return [*inside, "final_layer_norm"]


# -------------------------------------------------------------------------------------- rank and alpha of diffusers


def peft_alphas(metadata: Mapping[str, str], ranks: Mapping[str, int]) -> dict[str, float]:
    """The alpha of each layer (by its name in diffusers' files) of the given rank, as diffusers takes it.

    Where the metadata do not say anything it is the rank.
    """
    try:
        told = json.loads(metadata.get(PEFT_CONFIG) or "{}")
    except ValueError:
        told = {}
    return {layer: _peft_alpha(told, layer, rank) for layer, rank in ranks.items()}


def _peft_alpha(told: Mapping[str, Any], layer: str, rank: int) -> float:
    part, _, path = layer.partition(".")
    patterns: Mapping[str, float] = told.get(f"{part}.alpha_pattern") or {}
    exact = next((alpha for pattern, alpha in patterns.items() if _matches(pattern, path)), None)
    alpha = float(told.get(f"{part}.lora_alpha", rank) if exact is None else exact)
    return alpha * rank**0.5 if told.get(f"{part}.use_rslora") else alpha


def _matches(pattern: str, path: str) -> bool:
    return re.fullmatch(rf"(.*\.)?({pattern})", path) is not None


def peft_config(ranks: Mapping[str, int], alphas: Mapping[str, float], dora: bool) -> str:
    """The JSON from which diffusers makes its layers: one set of ranks and alphas for each part."""
    content: dict[str, Any] = {}
    for part in sorted({layer.partition(".")[0] for layer in ranks}):
        layers = [layer for layer in ranks if layer.startswith(f"{part}.")]
        # without `text_model.`, because CLIPTextModel is without it since transformers 5.6; patterns match endings
        paths = {layer: layer.removeprefix(f"{part}.").removeprefix("text_model.") for layer in layers}
        (rank, alpha), _ = Counter((ranks[name], alphas[name]) for name in layers).most_common(1)[0]
        own = {
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": {re.escape(paths[name]): ranks[name] for name in layers if ranks[name] != rank},
            "alpha_pattern": {re.escape(paths[name]): alphas[name] for name in layers if alphas[name] != alpha},
            "target_modules": sorted(paths.values()),
            "use_dora": dora,
        }
        content |= {f"{part}.{key}": value for key, value in own.items()}
    return json.dumps(content, indent=2, sort_keys=True)
