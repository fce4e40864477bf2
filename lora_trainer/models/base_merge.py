"""LoRAs of any kind written into a base model's own weights, tensor by tensor, so that nothing is held as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lora_trainer.atomic import staged_folder
from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_delta import bias_change, changed_bias, changed_weight
from lora_trainer.models.adapter_facts import MERGED_FROM
from lora_trainer.models.adapter_file import AdapterFile, FileLayer
from lora_trainer.models.adapter_names import layer_places
from lora_trainer.models.base_weights import WEIGHTS, BaseWeights, Slot
from lora_trainer.models.checkpoint import KIND_WORDS
from lora_trainer.models.tensor_files import TensorFile, write_tensor_file

_LISTED = 5


@dataclass(frozen=True)
class Edit:
    """One layer of a LoRA at its place in a tensor."""

    name: str
    slot: Slot
    layer: FileLayer
    ratio: float
    is_bias: bool

    def apply(self, whole: Tensor) -> None:
        """Change the layer's part of a float32 tensor in place."""
        view = self.slot.of(whole)
        layer = FileLayer(self.layer.kind, {end: tensor.to(whole.device) for end, tensor in self.layer.tensors.items()})
        change = changed_bias if self.is_bias else changed_weight
        view.copy_(change(self.name, layer, view.clone(), self.ratio))


Edits = dict[tuple[Path, str], list[Edit]]  # by file and tensor


def plan_edits(base: BaseWeights, files: Sequence[AdapterFile], ratios: Sequence[float]) -> Edits:
    """Where each layer goes. Raises Refusal for LoRAs of another family, and for layers that the base does not have."""
    places = layer_places(base.kind, base.unet_config)
    edits: Edits = {}
    problems = []
    for file, ratio in zip(files, ratios, strict=True):
        if file.base_kind not in (None, base.kind):
            problems.append(
                f"{file.path} is for {KIND_WORDS[file.base_kind]} and {base.path} is {KIND_WORDS[base.kind]}; "
                "give files of the same family"
            )
            continue
        missing = []
        for name, layer in file.layers.items():
            slots = base.slots.get(places[name], {}) if name in places else {}
            leaves = _leaves(layer)
            missing += [f"{name} ({leaf})" if slots else name for leaf in leaves if leaf not in slots][:1]
            for leaf in leaves:
                if leaf in slots:
                    slot = slots[leaf]
                    edit = Edit(name, slot, layer, ratio, leaf == "bias")
                    edits.setdefault((slot.file, slot.tensor), []).append(edit)
        if missing:
            problems.append(_missing(file, base, missing))
    if problems:
        raise Refusal(*problems)
    return edits


def _leaves(layer: FileLayer) -> list[str]:
    leaves = [] if layer.kind == "bias" else ["weight"]
    return leaves if bias_change(layer) is None else [*leaves, "bias"]


def _missing(file: AdapterFile, base: BaseWeights, missing: Sequence[str]) -> str:
    more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
    return (
        f"{file.path}: {len(missing)} of {len(file.layers)} layers are not in {base.path} "
        f"({', '.join(missing[:_LISTED])}{more}), so nothing is written; give a base model of the same family"
    )


def write_merged(
    base: BaseWeights, edits: Edits, target: Path, dtype: torch.dtype | None, device: torch.device, names: Sequence[str]
) -> None:
    """Write the base model with its edits: a file for a file, a folder (which must not exist) for a folder.

    `dtype` is for all floating-point tensors; without one each keeps its own. `names` are those of the LoRAs, for the
    metadata.
    """
    if base.path.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_file(base.path, base.files[base.path], edits, target, dtype, device, names)
        return
    with staged_folder(target) as staged:
        ours = set(base.files)
        for file in sorted(file for file in base.path.rglob("*") if file.is_file()):
            copy = staged / file.relative_to(base.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if file in ours:
                _write_file(file, base.files[file], edits, copy, dtype, device, names)
            elif not _is_other_copy(file, ours):
                shutil.copyfile(file, copy)


def _is_other_copy(file: Path, ours: set[Path]) -> bool:
    """Whether a file holds the same part without the LoRA: another variant, or another format."""
    return file.suffix in (WEIGHTS, ".bin") and file.parent in {path.parent for path in ours}


def _write_file(
    path: Path,
    file: TensorFile,
    edits: Edits,
    target: Path,
    dtype: torch.dtype | None,
    device: torch.device,
    names: Sequence[str],
) -> None:
    def read(name: str) -> Tensor:
        tensor = file.read(name)
        todo = edits.get((path, name))
        if not todo:
            return tensor
        changed = tensor.to(device).float().clone()
        for edit in todo:
            edit.apply(changed)
        return changed

    dtypes = {name: dtype if dtype and own.is_floating_point else own for name, own in file.dtypes.items()}
    write_tensor_file(target, file.shapes, dtypes, read, _merged_metadata(file.metadata, path, names))


def _merged_metadata(metadata: Mapping[str, str], path: Path, names: Sequence[str]) -> dict[str, str]:
    before = metadata.get(MERGED_FROM, path.name)
    return {**metadata, MERGED_FROM: ", ".join((before, *names))}
