"""Starting an upscaler or a discriminator from a file: all of it, or whatever fits a network of another scale."""

from __future__ import annotations

import pickle
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_trainer.errors import Refusal
from lora_trainer.models.file_kinds import is_torch_file, known_stranger
from lora_trainer.models.state_files import read_state_file

SHOWN = 10  # names in a message
# where training programs keep the weights in a .pth file, the best first
TABLES = ("params_ema", "params-ema", "params", "model_state_dict", "state_dict", "net_g_ema", "net_g", "model", "net")
PREFIXES = ("module.", "_orig_mod.", "netG.")  # what wrappers put before every name
# the only buffers that training changes: batch norm's, and the vectors of spectral norm
STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "weight_u", "weight_v", "._u", "._v")

Layers = dict[str, dict[str, str]]  # layer name -> last part of a weight's name -> its whole name


@dataclass(frozen=True)
class PretrainReport:
    """What became of a file's tensors. Names are the module's, except in `unexpected`, which are the file's."""

    file: str
    total: int  # tensors of the module
    taken: tuple[str, ...]
    remapped: tuple[tuple[str, str], ...]  # the file's name, the module's name; not in `taken`
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]  # `name (shape in the file, shape here)`

    @property
    def share(self) -> float:
        """Of the module's tensors, those that the file filled: 0 to 1."""
        return (len(self.taken) + len(self.remapped)) / self.total

    @property
    def lines(self) -> tuple[str, ...]:
        """For the log."""
        count = len(self.taken) + len(self.remapped)
        layers = dict.fromkeys((old.rpartition(".")[0], new.rpartition(".")[0]) for old, new in self.remapped)
        lists = (
            ("moved", [f"{old} -> {new}" for old, new in layers]),
            ("of another shape, left as they start", self.mismatched),
            ("not in the file, left as they start", self.missing),
            ("only in the file, not used", self.unexpected),
        )
        first = f"{self.file}: {count} of {self.total} tensors ({100 * self.share:.1f} %) taken over"
        return (first, *(f"{text}: {_some(names)}" for text, names in lists if names))


def load_pretrain(module: nn.Module, path: Path, *, strict: bool, param_key: str = "") -> PretrainReport:
    """Fill the module with a file's weights, in place.

    Strict, every name and shape must fit. Otherwise what fits is taken over, also layers whose number in their
    Sequential has changed, and the rest stays as it is. Raises Refusal: nothing in common, or what differs.
    """
    found: Mapping[str, Tensor] = read_weights(path, param_key)
    here = module.state_dict()
    if not _fitting(found, here):
        found = _renamed(found)
    taken = _fitting(found, here)
    missing = [name for name in here if name not in found]
    unexpected = [name for name in found if name not in here]
    mismatched = [name for name in here if name in found and name not in taken]
    if strict and (missing or unexpected or mismatched):
        raise Refusal(_differences(path, missing, unexpected, _shapes(mismatched, found, here)))
    moved = {} if strict else _moved(found, here, taken)
    if not {*taken, *moved} & {name for name, _ in module.named_parameters()}:
        raise Refusal(
            f"{path}: nothing in this file fits the network: it has {_some(list(found), 3)}, and the network has "
            f"{_some(list(here), 3)}; give a pretrain of the same architecture and sizes"
        )
    _fill(path, module, found, {name: name for name in taken} | moved)
    gone = set(moved.values())
    return PretrainReport(
        path.name,
        len(here),
        tuple(taken),
        tuple((old, new) for new, old in moved.items()),
        tuple(name for name in missing if name not in moved),
        tuple(name for name in unexpected if name not in gone),
        tuple(_shapes([name for name in mismatched if name not in moved], found, here)),
    )


def read_weights(path: Path, param_key: str = "") -> dict[str, Tensor]:
    """The named tensors of a .safetensors or .pth file, on the CPU, without wrappers' prefixes. Raises Refusal."""
    if not path.is_file():
        raise Refusal(f"{path}: there is no such file; correct the path of the network's weights")
    if stranger := known_stranger(path):
        raise Refusal(f"{path}: this is {stranger}; give the .safetensors or .pth file of a network")
    weights = _read_torch(path, param_key) if is_torch_file(path) else read_state_file(path).tensors
    if not weights:
        raise Refusal(f"{path}: the file holds no weights; give the .safetensors or .pth file of a network")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _read_torch(path: Path, param_key: str) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Refusal(
            f"{path}: the file holds Python objects besides tensors, which could run any program when opened, "
            "so it is not opened; convert it to .safetensors with a tool you trust"
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise Refusal(f"{path}: the PyTorch file is damaged ({error}); copy or download it again") from error
    if not isinstance(content, Mapping):
        raise Refusal(f"{path}: the file holds a {type(content).__name__}, not named tensors; give a network's weights")
    tables = {str(name): table for name, table in content.items() if isinstance(table, Mapping)}
    if param_key and param_key not in tables:
        there = f"there is {', '.join(tables)}" if tables else "its weights are in no table, so leave the key out"
        raise Refusal(f"{path}: the file has no table {param_key}; {there}")
    named = [table for name, table in tables.items() if name == param_key] if param_key else []
    known = [tables[name] for name in TABLES if name in tables]
    only = list(tables.values()) if len(content) == 1 else []
    table = next(iter([*named, *known, *only]), content)
    return {str(name): tensor for name, tensor in table.items() if isinstance(tensor, Tensor)}


def _renamed(found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A file in one of the other spellings of its architecture, as spandrel knows them; else unchanged."""
    import spandrel

    try:
        descriptor = spandrel.MAIN_REGISTRY.load(dict(found))
    except Exception:  # whatever its readers stumble over in a person's file
        return found
    renamed: Mapping[str, Tensor] = descriptor.model.state_dict()
    return renamed


def _fitting(found: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in here.items() if name in found and found[name].shape == tensor.shape]


def _moved(found: Mapping[str, Tensor], here: Mapping[str, Tensor], taken: Iterable[str]) -> dict[str, str]:
    """The module's name -> the file's name of weights whose layer has another number there.

    A network of another scale has more or fewer layers before the last ones. So layers that are alike but for their
    numbers are matched from the end, each with the next one that has the same shapes.
    """
    taken = set(taken)
    left_here = _layers(name for name in here if name not in taken)
    left_found = _layers(name for name in found if name not in taken)
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for layer in left_found:
        alike[_without_numbers(layer)].append(layer)
    moved: dict[str, str] = {}
    for layer, parts in reversed(left_here.items()):
        candidates = alike[_without_numbers(layer)]
        shapes = {part: here[name].shape for part, name in parts.items()}
        for position in range(len(candidates) - 1, -1, -1):
            other = left_found[candidates[position]]
            if {part: found[name].shape for part, name in other.items()} == shapes:
                moved |= {parts[part]: other[part] for part in parts}
                del candidates[position:]  # the order must stay
                break
    return {name: moved[name] for name in here if name in moved}


def _layers(names: Iterable[str]) -> Layers:
    """Weights by layer, the layers in the order of their numbers."""
    layers: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        layer, _, part = name.rpartition(".")
        layers[layer][part] = name
    return dict(sorted(layers.items(), key=lambda item: [int(number) for number in re.findall(r"\d+", item[0])]))


def _without_numbers(layer: str) -> str:
    return re.sub(r"\d+", "#", layer)


def _fill(path: Path, module: nn.Module, found: Mapping[str, Tensor], sources: Mapping[str, str]) -> None:
    """Copy the weights. Buffers that the constructor computes stay: some of them hold the scale."""
    weights = dict(module.named_parameters())
    weights |= {name: buffer for name, buffer in module.named_buffers() if name.endswith(STATISTICS)}  # type: ignore[misc]
    for name, source in sources.items():
        if name not in weights:
            continue
        if found[source].is_floating_point() and not bool(found[source].isfinite().all()):
            raise Refusal(f"{path}: {source} holds NaN or infinite numbers; give weights of a run that did not fail")
        with torch.no_grad():
            weights[name].copy_(found[source])


def _differences(path: Path, missing: list[str], unexpected: list[str], mismatched: list[str]) -> str:
    parts = [
        f"{text} {_some(names)}"
        for text, names in (
            ("it has other shapes in", mismatched),
            ("it lacks", missing),
            ("it also has", unexpected),
        )
        if names
    ]
    return (
        f"{path}: the file does not fit the network exactly: {'; '.join(parts)}. Set the network's type and options to "
        "the file's, or turn strict loading off (strict_load_g or strict_load_d false) to take over what fits"
    )


def _shapes(names: list[str], found: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> list[str]:
    return [f"{name} ({tuple(found[name].shape)} in the file, {tuple(here[name].shape)} here)" for name in names]


def _some(names: Sequence[str], shown: int = SHOWN) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
