"""LPIPS and DISTS, through the package piq: differences as VGG16 sees them, weighted by what people said of pictures.

Pictures are (b, 3, h, w) from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from lora_trainer.errors import Refusal
from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.pretrained import Published, Unusable, downloads, read_weights, wrong_content
from lora_trainer.losses.random_features import RandomLpips
from lora_trainer.losses.vgg import CHANNELS, LAYERS_16, VGG16, vgg16_features

RELEASES = "https://github.com/photosynthesis-team"
LPIPS = Published("LPIPS", f"{RELEASES}/photosynthesis.metrics/releases/download/v0.4.0/lpips_weights.pt")
DISTS = Published("DISTS", f"{RELEASES}/piq/releases/download/v0.4.1/dists_weights.pt")
STAND_IN = "stand-in"
LAYERS = [str(LAYERS_16.index(name)) for name in ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")]


class Lpips(nn.Module):
    """(b,) learned perceptual difference with VGG16 (Zhang et al. 2018); 0 for equal pictures.

    ``weights`` is a folder with vgg16-397923af.pth and lpips_weights.pt; "" downloads them. Raises Refusal.
    """

    def __init__(self, weights: str = "") -> None:
        super().__init__()
        piq = _piq()
        learned = _read(weights, LPIPS)
        if not isinstance(learned, (list, tuple)) or [part.numel() for part in learned] != list(CHANNELS):
            raise wrong_content(LPIPS, f"a {type(learned).__name__} that is not a weight for each channel of 5 layers")
        self.network = _bare(piq, piq.LPIPS, weights, list(learned), normalize_features=True)

    @full_precision
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        difference: Tensor = self.network(output, target)
        return difference


def lpips_files(folder: Path) -> tuple[Path, ...]:
    """Where the files of LPIPS are looked for in a folder."""
    return tuple(folder / published.file_name for published in (VGG16, LPIPS))


def find_lpips(place: str, key: str) -> None:
    """Raises Refusal, which begins with the preset's key, where it is clear without loading that `open_lpips` would.

    Without a place that is so when what torch has not downloaded before must not be downloaded now.
    """
    if place == STAND_IN:
        return
    try:
        _piq()
    except Refusal as refusal:
        raise Refusal(f"{key}: {refusal}") from refusal
    if place and not Path(place).is_dir():
        raise Refusal(f"{key}: there is no folder {place}; {_lpips_cure()}")
    folder = Path(place) if place else downloads()
    missing = [file.name for file in lpips_files(folder) if not file.is_file()]
    if missing and (place or _is_offline()):
        given = "" if place else "no weights of LPIPS are given, HF_HUB_OFFLINE is set, and "
        raise Refusal(f"{key}: {given}there is no {' and no '.join(missing)} in {folder}; {_lpips_cure()}")


def open_lpips(place: str, key: str) -> nn.Module:
    """`Lpips` with the files of a folder or torch's downloads, or the stand-in by its name.

    Raises Refusal, which begins with the preset's key.
    """
    if place == STAND_IN:
        return RandomLpips()
    find_lpips(place, key)
    try:
        return Lpips(place)
    except Unusable as error:
        raise Refusal(f"{key}: {error.found}; {_lpips_cure()}") from error


class Dists(nn.Module):
    """(b,) difference of structure and texture (Ding et al. 2020); 0 for equal pictures.

    Pictures whose shorter side is above 256 px are made that small first. ``weights`` is a folder with
    vgg16-397923af.pth and dists_weights.pt; "" downloads them. ``clip_min`` is the least value. Raises Refusal.
    """

    def __init__(self, weights: str = "", clip_min: float = 0.0) -> None:
        super().__init__()
        piq = _piq()
        self.clip_min = clip_min
        learned = _read(weights, DISTS)
        if not isinstance(learned, Mapping) or not {"alpha", "beta"} <= set(learned):
            raise wrong_content(DISTS, "no alpha and beta")
        parts = [part for name in ("alpha", "beta") for part in learned[name].split([3, *CHANNELS], dim=1)]
        self.network = _bare(piq, piq.DISTS, weights, parts, replace_pooling=True)

    @full_precision
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        difference: Tensor = self.network(output, target)
        return difference.clamp(min=self.clip_min)


def _bare(piq: ModuleType, kind: Any, weights: str, learned: list[Tensor], **options: bool) -> nn.Module:
    """A piq metric without its own constructor, which could only download."""
    network: nn.Module = kind.__new__(kind)
    piq.ContentLoss.__init__(
        network, vgg16_features(_read(weights, VGG16)), layers=LAYERS, weights=learned, reduction="none",
        allow_layers_weights_mismatch=True, **options,
    )  # fmt: skip
    return network.requires_grad_(False).eval()


def _lpips_cure() -> str:
    return (
        f"get {VGG16.file_name} from {VGG16.url} and {LPIPS.file_name} from {LPIPS.url}, and write the path of the "
        f"folder that holds both, or {STAND_IN} for a network with random weights"
    )


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _read(weights: str, published: Published) -> Any:
    return read_weights(published, Path(weights) / published.file_name if weights else None)


def _piq() -> ModuleType:
    try:
        import piq
    except ImportError as error:
        raise Refusal(
            "LPIPS and DISTS need the package piq, which is not installed; type pip install lora_trainer[metrics]"
        ) from error
    module: ModuleType = piq
    return module
