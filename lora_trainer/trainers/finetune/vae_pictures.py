"""A VAE's pictures: measured by how near they come to the originals, and shown beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_trainer.data.buckets import Placement
from lora_trainer.data.color_augmentation import turn_hue
from lora_trainer.data.latent_encoding import read_pixels
from lora_trainer.data.survey import Sample
from lora_trainer.engine.precision import Precision
from lora_trainer.losses.hues import HUES, share_of
from lora_trainer.losses.image_quality import psnr
from lora_trainer.trainers.diffusion.sampling import evaluating
from lora_trainer.trainers.finetune.vae_objective import VaeModel, VaeObjective, as_shares
from lora_trainer.trainers.preview_sheet import Cell, write_grid

TURNED_DEGREES = (120.0, 240.0)  # red to green and blue, orange to a bluish green and violet
COLOURED = 0.1  # a picture counts as green when so much of it is
SHOWN, SHOWN_PX = 8, 256  # pictures of a sheet, and the most that is seen of a side
IN_A_ROW = 2


@dataclass(frozen=True)
class VaePictures:
    """The model as it is, with what its passes need."""

    model: VaeModel
    objective: VaeObjective
    precision: Precision
    device: torch.device

    def measure(self, samples: Sequence[Sample]) -> dict[str, float]:
        """`psnr` and `loss`, means over the pictures; `psnr_green` and the like over those with that colour, where
        there are any; `psnr_turned` over all with other hues. The mean of each picture's latents is decoded."""
        found: dict[str, list[float]] = {"psnr": [], "loss": [], "psnr_turned": []}
        for pixels, output in self._passes((sample, sample.placement, 0.0) for sample in samples):
            near = _psnr(pixels, output)
            found["psnr"].append(near)
            found["loss"].append(float(sum(self.objective.differences(output, pixels).values())))
            for hue in HUES:
                if float(share_of(as_shares(pixels), hue)) >= COLOURED:
                    found.setdefault(f"psnr_{hue}", []).append(near)
        turned = ((sample, sample.placement, degrees) for sample in samples for degrees in TURNED_DEGREES)
        found["psnr_turned"] = [_psnr(pixels, output) for pixels, output in self._passes(turned)]
        return {name: float(np.mean(values)) for name, values in found.items()}

    def again(self, samples: Sequence[Sample]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The middle of each picture, and what becomes of it; (h, w, 3) of 0 to 255."""
        parts = ((sample, _middle(sample.placement), 0.0) for sample in samples)
        return [(_as_bytes(pixels), _as_bytes(output)) for pixels, output in self._passes(parts)]

    @torch.no_grad()
    def _passes(self, parts: Iterable[tuple[Sample, Placement, float]]) -> Iterator[tuple[Tensor, Tensor]]:
        """(1, 3, h, w) from -1 to 1, before and after, of pictures whose hues are turned by so many degrees."""
        with evaluating(self.model):
            for sample, placement, degrees in parts:
                change = partial(turn_hue, degrees=degrees) if degrees else None
                pixels = read_pixels(sample, placement, change)[None].to(self.device)
                with self.precision.autocast():
                    output = self.model(pixels, None)[0]
                yield pixels, output.float()

    @torch.no_grad()
    def posteriors(self, vae: Any, samples: Sequence[Sample]) -> Iterator[tuple[Tensor, Tensor]]:
        """Mean and standard deviation of each picture's latents by this VAE, in its own number format."""
        with evaluating(vae):
            for sample in samples:
                posterior = vae.encode(read_pixels(sample)[None].to(self.device, vae.dtype)).latent_dist
                yield posterior.mean, posterior.std


def _psnr(pixels: Tensor, output: Tensor) -> float:
    return float(psnr(as_shares(output).clamp(0, 1), as_shares(pixels)))


def write_sheet(path: Path, versions: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]) -> None:
    """Each picture, and beside it what each version of the VAE makes of it; the versions are named above."""
    rows: list[list[Cell]] = []
    for number, shots in enumerate(zip(*versions.values(), strict=True)):
        if number % IN_A_ROW == 0:
            rows.append([])
        original = Cell(shots[0][0], "original")
        rows[-1] += [original, *(Cell(after, name) for name, (_, after) in zip(versions, shots, strict=True))]
    write_grid(path, rows)


def spread_out(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many, evenly chosen."""
    if len(samples) <= most:
        return list(samples)
    return [samples[index * len(samples) // most] for index in range(most)]


def _middle(placement: Placement) -> Placement:
    sides = tuple(min(side, SHOWN_PX) for side in placement.bucket_px)
    corner = tuple(
        start + (whole - own) // 2
        for start, whole, own in zip(placement.crop_top_left_px, placement.bucket_px, sides, strict=True)
    )
    return Placement((sides[0], sides[1]), placement.resized_px, (corner[0], corner[1]))


def _as_bytes(pixels: Tensor) -> np.ndarray:
    values = (as_shares(pixels[0].float()).clamp(0, 1) * 255).round().to(torch.uint8)
    return values.permute(1, 2, 0).cpu().numpy()
