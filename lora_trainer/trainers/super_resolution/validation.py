"""Measuring an upscaler on held-out pictures, and showing the same crops of them over time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lora_trainer.config.super_resolution import SuperResolutionPreset
from lora_trainer.data.pairs import validation_pairs
from lora_trainer.data.picture_tensors import as_pixels, as_tensor
from lora_trainer.data.resize import bicubic, downscale_lq
from lora_trainer.engine.ema import Ema
from lora_trainer.engine.precision import Precision
from lora_trainer.models.sr_networks import SrNetwork
from lora_trainer.models.sr_tiling import upscale_tiled
from lora_trainer.trainers.preview_sheet import write_png
from lora_trainer.trainers.super_resolution.job import SuperResolutionJob
from lora_trainer.trainers.super_resolution.metrics import Measure, make_measures
from lora_trainer.trainers.super_resolution.sheet import Crop, draw_sheet

SHEET, SHOTS = "over_time.png", "over_time"  # the sheet of the crops, and their folder, among the samples


@dataclass(frozen=True)
class HeldOut:
    """A picture to measure on: (1, 3, h, w) from 0 to 1, on the CPU."""

    name: str
    lq: Tensor
    gt: Tensor


@dataclass(frozen=True)
class Validator:
    """Upscales the held-out pictures and measures the results."""

    preset: SuperResolutionPreset
    pictures: Sequence[HeldOut]
    measures: Mapping[str, Measure]
    device: torch.device
    precision: Precision

    @classmethod
    def build(cls, job: SuperResolutionJob, device: torch.device, precision: Precision) -> Validator:
        """Read the pictures and load the metrics' networks, if any. Raises Refusal."""
        preset = job.preset
        assert job.held_out is not None
        pictures = []
        for name, gt, lq in validation_pairs(job.held_out, preset.scale):
            whole = as_tensor(gt)
            small = as_tensor(lq) if lq is not None else downscale_lq(whole, preset.scale, preset.lq_resize_mode)
            pictures.append(HeldOut(name, small, whole))
        measures = make_measures(preset.metrics) if preset.metrics_enabled else {}
        return cls(preset, pictures, measures, device, precision)

    @torch.inference_mode()
    def measure(self, network: SrNetwork, folder: Path, done: int) -> dict[str, float]:
        """The means over the pictures; leaves them, and the sheet over time, in the folder."""
        found: dict[str, list[float]] = {name: [] for name in self.measures}
        crops = []
        for number, picture in enumerate(self.pictures):
            result = self._upscaled(network, picture.lq)
            for name, measure in self.measures.items():
                found[name].append(float(measure(result, picture.gt).mean()))
            stem = f"{number:03d}_{Path(picture.name).stem}"
            if self.preset.save_img:
                save_picture(folder / "validation" / f"{stem}_{done:08d}.png", result)
            if self.preset.val_crop_px:
                crops.append(self._crop(folder, stem, picture, result, done))
        if crops:
            draw_sheet(folder / SHEET, crops)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _upscaled(self, network: SrNetwork, lq: Tensor) -> Tensor:
        preset = self.preset
        with self.precision.autocast():
            result = upscale_tiled(
                network.module,
                lq.to(self.device),
                preset.scale,
                tile_px=preset.tile_size,
                overlap_px=preset.tile_overlap if preset.tile_size else 0,
                multiple=network.size_multiple,
                minimum_px=network.min_size,
            )
        return result.float().clamp(0, 1).cpu()

    def _crop(self, folder: Path, stem: str, picture: HeldOut, result: Tensor, done: int) -> Crop:
        """The middle of the picture: enlarged plainly, as it is now and was before, and as it should be."""
        height, width = picture.gt.shape[-2:]
        side = min(self.preset.val_crop_px, height, width)
        top, left = (height - side) // 2, (width - side) // 2

        def middle(image: Tensor) -> Tensor:
            return image[..., top : top + side, left : left + side]

        shots = folder / SHOTS
        save_picture(shots / f"{stem}_{done:08d}.png", middle(result))
        plain = bicubic(picture.lq, (height, width)).clamp(0, 1)
        before = sorted(file for file in shots.glob(f"{stem}_*.png") if file.stem.removeprefix(f"{stem}_").isdigit())
        return Crop(picture.name, as_pixels(middle(plain)), as_pixels(middle(picture.gt)), tuple(before))


@contextlib.contextmanager
def averaged(ema: Ema | None) -> Iterator[None]:
    """Within, the generator is its average, where there is one."""
    with ema.swapped() if ema is not None else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within, without stochastic depth and with the weights that some networks compute for inference."""
    module.eval()
    try:
        yield
    finally:
        module.train()


def save_picture(path: Path, image: Tensor) -> None:
    """The first of (b, 3, h, w) as a PNG file, atomically."""
    write_png(path, Image.fromarray(as_pixels(image)))
