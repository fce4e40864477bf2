"""Weights that others trained, from a local file or from their published address."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lora_trainer.errors import Refusal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A file of weights that anybody can get."""

    what: str
    url: str

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]


class Unusable(Refusal):
    """Weights that cannot be had. `found` is what is wrong, without the cure, for those who know a better one."""

    def __init__(self, found: str, cure: str, beginning: str = "weights: ") -> None:
        super().__init__(f"{beginning}{found}; {cure}")
        self.found = found


def read_weights(published: Published, path: Path | None) -> Any:
    """The content of the local file, or of the download where there is none. Raises Refusal with the address."""
    return _from_file(published, path) if path is not None else _downloaded(published)


def fill(features: nn.Module, state: Any, published: Published) -> None:
    """Give torchvision's `features` their values. Raises Refusal when the file is of something else."""
    if not isinstance(state, Mapping):
        raise wrong_content(published, f"a {type(state).__name__} instead of named tensors")
    prefix = "features." if any(name.startswith("features.") for name in state) else ""
    with torch.no_grad():
        for name, value in features.state_dict().items():
            given = state.get(f"{prefix}{name}")
            if not isinstance(given, Tensor) or given.shape != value.shape:
                found = f"the shape {tuple(given.shape)}" if isinstance(given, Tensor) else "nothing"
                raise wrong_content(published, f"{found} for features.{name}, which has {tuple(value.shape)}")
            value.copy_(given)


def wrong_content(published: Published, found: str) -> Unusable:
    """What to raise when a file can be read but is of something else."""
    return Unusable(f"the file is not of {published.what}, it has {found}", _cure(published))


def _from_file(published: Published, path: Path) -> Any:
    if not path.is_file():
        raise Unusable(f"there is no file {path} with the weights of {published.what}", _cure(published))
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file may cause
        raise Unusable(f"{path} cannot be read as tensors ({type(error).__name__})", _cure(published)) from error


def _downloaded(published: Published) -> Any:
    """As torchvision itself would do it, and to the same place."""
    place = downloads() / published.file_name
    if not place.is_file():
        log.info("downloading the weights of %s from %s to %s", published.what, published.url, place)
    try:
        return torch.hub.load_state_dict_from_url(published.url, map_location="cpu", progress=False, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise Unusable(
            f"the weights of {published.what} could not be downloaded from {published.url} ({reason})",
            f'get {published.file_name} by other means and say where it is with the option "weights", or lay it at '
            f"{place}",
            beginning="",
        ) from error


def downloads() -> Path:
    """Where torch keeps what it has downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _cure(published: Published) -> str:
    return f"get {published.file_name} from {published.url}"
