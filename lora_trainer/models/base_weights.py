"""A base model's weights layer by layer, straight from its files: one checkpoint, or a diffusers folder.

Nothing is loaded but the layer that is asked for. A layer is meant by its place (part, and path in diffusers' layout),
whatever the file calls it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_names import Place
from lora_trainer.models.base_configs import Configs, Kind, configs_from_metadata, published_configs
from lora_trainer.models.checkpoint import Checkpoint
from lora_trainer.models.clip_keys import TEXT_MODEL
from lora_trainer.models.detect import detect, detect_tensors
from lora_trainer.models.detect_folder import PARTS, read_json
from lora_trainer.models.kohya_keys import PREFIXES
from lora_trainer.models.ldm_checkpoint import TEXT_PARTS, TextPart
from lora_trainer.models.ldm_keys import UNET_PREFIX, unet_module_map
from lora_trainer.models.tensor_files import TensorFile, open_tensors

_STACKED = ("q_proj", "k_proj", "v_proj")
_IN_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_LAST_NORM = "final_layer_norm"
_LEAVES = ("weight", "bias")
WEIGHTS = ".safetensors"


class Slot(NamedTuple):
    """Where the weight or the bias of a layer is."""

    file: Path
    tensor: str
    third: int | None = None  # of a tensor that holds q, k and v
    transposed: bool = False

    def of(self, tensor: Tensor) -> Tensor:
        """The layer's own part of the whole tensor, as a view."""
        view = tensor if self.third is None else tensor.chunk(3)[self.third]
        return view.T if self.transposed else view


Slots = dict[Place, dict[str, Slot]]  # by "weight" and "bias"


@dataclass(frozen=True)
class BaseWeights:
    """An open base model."""

    path: Path
    kind: Kind
    unet_config: Mapping[str, Any]
    files: Mapping[Path, TensorFile]  # those that hold a UNet or a text encoder
    slots: Slots

    def shape(self, place: Place) -> tuple[int, ...]:
        """Of a layer's weight, without reading it."""
        slot = self.slots[place]["weight"]
        whole = self.files[slot.file].shapes[slot.tensor]
        if slot.third is not None:
            return (whole[0] // 3, *whole[1:])
        return whole[::-1] if slot.transposed else whole

    def read(self, place: Place, leaf: str = "weight") -> Tensor:
        slot = self.slots[place][leaf]
        return slot.of(self.files[slot.file].read(slot.tensor))


@contextlib.contextmanager
def open_base(path: Path) -> Iterator[BaseWeights]:
    """Open what `detect` knows: a .safetensors or .ckpt checkpoint, or a diffusers folder. Raises Refusal."""
    checkpoint = detect(path)
    if checkpoint.layout == "description":
        raise Refusal(f"{path}: this describes a model that has no weights yet; give one that has been trained")
    with contextlib.ExitStack() as stack:
        if checkpoint.layout == "folder":
            yield _open_folder(checkpoint, stack)
            return
        file = stack.enter_context(open_tensors(path))
        kind = detect_tensors(path, file.shapes, file.metadata).kind or "sd15"
        carried = configs_from_metadata(path, file.metadata)
        configs = carried[1] if carried else published_configs(kind)
        yield BaseWeights(path, kind, configs["unet"], {path: file}, _single_file_slots(kind, configs, path, file))


# ---------------------------------------------------------------------------------------------------------- one file


def _single_file_slots(kind: Kind, configs: Configs, path: Path, file: TensorFile) -> Slots:
    slots: Slots = {}
    for ours, theirs in unet_module_map(configs["unet"]).items():
        for leaf in _LEAVES:
            _add(slots, Place("unet", ours), leaf, Slot(path, f"{UNET_PREFIX}{theirs}.{leaf}"), file)
    for part in TEXT_PARTS[kind]:
        layers = configs[part.name]["num_hidden_layers"]
        _text_slots(slots, part, layers, path, file)
    return slots


def _text_slots(slots: Slots, part: TextPart, layers: int, path: Path, file: TensorFile) -> None:
    name = next(name for name in ("text_encoder", "text_encoder_2") if name == part.name)
    if part.open_clip and part.projection:
        slot = Slot(path, f"{part.prefix}text_projection", transposed=True)
        _add(slots, Place(name, "text_projection"), "weight", slot, file)
    for leaf in _LEAVES:
        ours = f"{_LAST_NORM}.{leaf}"
        tensor = f"{part.prefix}ln_final.{leaf}" if part.open_clip else _transformers_name(part.prefix, ours, file)
        _add(slots, Place(name, _LAST_NORM), leaf, Slot(path, tensor), file)
    for layer in range(layers):
        inside = f"encoder.layers.{layer}"
        for leaf in _LEAVES:
            for ours, theirs in _IN_OPEN_CLIP.items():
                tensor = f"{part.prefix}transformer.resblocks.{layer}.{theirs}.{leaf}"
                if not part.open_clip:
                    tensor = _transformers_name(part.prefix, f"{inside}.{ours}.{leaf}", file)
                _add(slots, Place(name, f"{inside}.{ours}"), leaf, Slot(path, tensor), file)
            for third, ours in enumerate(_STACKED):
                slot = Slot(path, f"{part.prefix}transformer.resblocks.{layer}.attn.in_proj_{leaf}", third)
                if not part.open_clip:
                    slot = Slot(path, _transformers_name(part.prefix, f"{inside}.self_attn.{ours}.{leaf}", file))
                _add(slots, Place(name, f"{inside}.self_attn.{ours}"), leaf, slot, file)


def _transformers_name(prefix: str, path: str, file: TensorFile) -> str:
    with_level = f"{prefix}{TEXT_MODEL}{path}"
    return with_level if with_level in file.shapes else prefix + path


def _add(slots: Slots, place: Place, leaf: str, slot: Slot, file: TensorFile) -> None:
    if slot.tensor in file.shapes:
        slots.setdefault(place, {})[leaf] = slot


# ------------------------------------------------------------------------------------------------------------ a folder


def _open_folder(checkpoint: Checkpoint, stack: contextlib.ExitStack) -> BaseWeights:
    folder, kind = checkpoint.path, checkpoint.kind or "sd15"
    files: dict[Path, TensorFile] = {}
    slots: Slots = {}
    for part in PREFIXES[kind]:
        for path in _weight_files(folder / part):
            file = files[path] = stack.enter_context(open_tensors(path))
            for name in file.shapes:
                module, _, leaf = name.removeprefix(TEXT_MODEL).rpartition(".")
                if leaf in _LEAVES:
                    slots.setdefault(Place(part, module), {})[leaf] = Slot(path, name)
    return BaseWeights(folder, kind, read_json(folder / PARTS[kind][0] / "config.json"), files, slots)


def _weight_files(place: Path) -> list[Path]:
    """The .safetensors files of one part: those that are no variant, else those of the variant."""
    files = sorted(place.glob(f"*{WEIGHTS}"))
    if not files:
        raise Refusal(f"{place}: there are no {WEIGHTS} files; save the model in that format")
    return [file for file in files if ".fp16" not in file.name] or files
