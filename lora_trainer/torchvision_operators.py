"""Let torchvision be imported beside a PyTorch that its compiled operators do not fit.

PyPI's torchvision is built for CUDA. Beside a CPU-only PyTorch its operators do not load, and its import ends with
"operator torchvision::nms does not exist", which takes transformers, spandrel and the metrics along. Nothing here calls
these operators, so their declaration is enough.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_kept: list[Any] = []  # a torch.library.Library takes its declarations back when it is collected


def declare_torchvision_operators() -> None:
    """Declare what torchvision expects its own library to have declared; nothing when that library loads."""
    if _kept or importlib.util.find_spec("torchvision") is None or _library_loads():
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            with contextlib.suppress(RuntimeError):  # declared in the meantime
                library.define(schema)  # type: ignore[no-untyped-call]
    _kept.append(library)


def _library_loads() -> bool:
    """Whether the operators' library can be loaded here. Only on Linux may PyPI's builds not fit."""
    import torch

    spec = importlib.util.find_spec("torchvision")
    if sys.platform != "linux" or spec is None or spec.submodule_search_locations is None:
        return True
    libraries = [file for place in spec.submodule_search_locations for file in Path(place).glob("_C*.so")]
    try:
        for library in libraries:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return bool(libraries)


class _BeforeTorchvision(MetaPathFinder):
    """Finds no module; it only hears that torchvision is about to be imported, by whichever library."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)  # find_spec asks all finders again
            declare_torchvision_operators()
        return None


def declare_before_import() -> None:
    """Have the operators declared when, and only if, torchvision is imported."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())
