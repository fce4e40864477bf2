"""The tensors and options in an official StyleGAN snapshot (.pkl), read without running any of the code in it.

Such a file is a pickle of whole modules, whose source it carries along. Here every class in it is replaced by an inert
holder of its state, and any name beyond the few that networks consist of is refused.
"""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.restricted_pickle import RestrictedUnpickler, UnknownName

NETWORKS = ("G", "D", "G_ema")
_DEEPEST = 40  # modules within modules; a cycle would never end


@dataclass(frozen=True)
class OfficialNetwork:
    """A network's tensors by their official names, and the values its constructor was given."""

    class_name: str
    tensors: dict[str, Tensor]
    options: dict[str, Any]


@dataclass(frozen=True)
class OfficialSnapshot:
    """Those of G, D and G_ema that are in the file, and what it says of its data set."""

    networks: dict[str, OfficialNetwork]
    dataset: dict[str, Any]


class _Options(dict[str, Any]):
    """A dictionary of the official code, whose entries can also be written as attributes."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


class _Held:
    """A module that is not rebuilt: its class's name and its state."""

    class_name = ""

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.state = state


class _Dtype:
    """A numpy type of plain numbers, as a pickle describes it: first the kind, then the order of bytes."""

    def __init__(self, kind: Any = "", *_: Any) -> None:
        if not isinstance(kind, str) or kind[:1] not in "fiub?" or not kind:
            raise pickle.UnpicklingError(f"an array of {kind!r} is not of plain numbers")
        self.type = np.dtype(kind)

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        if order in ("<", ">"):
            self.type = np.dtype(order + self.type.str[1:])


class _Array:
    """A numpy array, from the bytes in the pickle."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array is not of plain numbers")
        self.value = np.frombuffer(data, dtype.type).reshape(shape, order="F" if fortran else "C")


def _array(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a number is not plain")
    return np.frombuffer(data, dtype.type)[0].item()


def _storage(data: Any) -> Any:
    """A tensor's memory is a file of its own within the file, of which torch reads nothing but tensors."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    if not isinstance(storage, torch.storage.TypedStorage | torch.UntypedStorage):
        raise pickle.UnpicklingError("a tensor has no memory")
    rebuilt: Tensor = torch._utils._rebuild_tensor_v2(  # type: ignore[no-untyped-call]
        storage, offset, tuple(size), tuple(stride), False, collections.OrderedDict()
    )
    return rebuilt


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _persistent(meta: Any, *_: Any) -> _Held:
    """An object of a class whose source is in `meta`, and stays there unread."""
    if not isinstance(meta, dict):
        raise pickle.UnpicklingError("a module has no description")
    held = _Held()
    held.class_name = str(meta.get("class_name", ""))
    held.__setstate__(meta.get("state"))
    return held


def _encoded(text: Any, *_: Any) -> bytes:
    if not isinstance(text, str):
        raise pickle.UnpicklingError("what is to be encoded is no text")
    return text.encode("latin1")


def _plain_class(name: str) -> type[_Held]:
    return type(name, (_Held,), {"class_name": name})


_KNOWN: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("dnnlib.util", "EasyDict"): _Options,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): _encoded,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{
        (f"numpy.{core}.multiarray", name): function
        for core in ("core", "_core")
        for name, function in (("_reconstruct", _array), ("scalar", _scalar))
    },
    # CREPS has parts that carry no source
    ("training.networks_creps", "SynthesisInput"): _plain_class("SynthesisInput"),
    ("torch.nn.modules.container", "Sequential"): _plain_class("Sequential"),
    ("torch.nn.modules.container", "ModuleList"): _plain_class("ModuleList"),
}


def read_official_pickle(path: Path) -> OfficialSnapshot:
    """Read a `network-snapshot-*.pkl` of stylegan2-ada-pytorch, stylegan3 or CREPS.

    Raises Refusal for names that such a file does not need, for what is no such file, and for a damaged one.
    """
    try:
        with path.open("rb") as file:
            content = RestrictedUnpickler(file, _KNOWN).load()
        if not isinstance(content, dict):
            raise Refusal(f"{path}: the file holds a {type(content).__name__}, not networks; give a StyleGAN snapshot")
        networks = {name: _network(content[name]) for name in NETWORKS if isinstance(content.get(name), _Held)}
    except UnknownName as error:
        raise Refusal(_foreign(path, str(error))) from error
    except OSError as error:
        raise Refusal(f"{path}: the snapshot cannot be read ({error}); correct the path") from error
    except Refusal:
        raise
    except Exception as error:  # whatever a damaged or malicious stream leads to
        raise Refusal(f"{path}: not a readable StyleGAN snapshot ({error}); copy or download it again") from error
    if not networks:
        raise Refusal(f"{path}: there is none of the networks {', '.join(NETWORKS)} in it; give a StyleGAN snapshot")
    dataset = content.get("training_set_kwargs")
    return OfficialSnapshot(networks, dict(dataset) if isinstance(dataset, dict) else {})


def _foreign(path: Path, name: str) -> str:
    if name.startswith("dnnlib.tflib"):
        return f"{path}: a snapshot of the TensorFlow version; convert it with stylegan3's legacy.py first"
    return (
        f"{path}: the file asks for {name}, which no network needs and which could run any program, so it is not "
        "opened; give a snapshot of stylegan2-ada-pytorch, stylegan3 or CREPS"
    )


def _network(held: _Held) -> OfficialNetwork:
    tensors: dict[str, Tensor] = {}
    _collect(held, "", tensors, 0)
    options = held.state.get("_init_kwargs")
    plain = {name: value for name, value in options.items() if isinstance(name, str)} if options else {}
    return OfficialNetwork(held.class_name, tensors, _plain(plain))


def _collect(held: _Held, prefix: str, tensors: dict[str, Tensor], depth: int) -> None:
    """As `state_dict` names them: parameters and buffers, then those of each part."""
    if depth > _DEEPEST:
        raise pickle.UnpicklingError("its modules lie too deep in each other")
    for table in ("_parameters", "_buffers"):
        for name, value in (held.state.get(table) or {}).items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}{name}"] = value.detach()
    for name, part in (held.state.get("_modules") or {}).items():
        if isinstance(part, _Held):
            _collect(part, f"{prefix}{name}.", tensors, depth + 1)


def _plain(value: Any) -> Any:
    """Dictionaries, lists, texts and numbers; what else a constructor was given is left out as its type's name."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | float | bool) else type(value).__name__
