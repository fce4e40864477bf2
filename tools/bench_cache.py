"""Measure the look at a set of pictures and the making of its latents against plain loops in the same run.

python -m tools.bench_cache --pictures 100 --size tiny
Half of the pictures are JPEGs, half PNGs, in three shapes, twice as large as they are trained, and lie in the system's
memory as they have just been written. The plain loops do one picture after the other, as the scripts that are well
known do: sizes by Pillow; then decoding, resizing, the VAE with batches of one, and a file for each. The VAE has random
weights, which make it neither faster nor slower. A line of JSON for each way, then a table; times are the clock's, as
decoding and writing go on beside the VAE.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.folders import Picture
from lora_trainer.data.latent_cache import LatentCache, LatentSettings
from lora_trainer.data.survey import WORKERS, Sample, survey
from lora_trainer.models.architectures import build_vae
from lora_trainer.trainers.diffusion.base import place_vae
from lora_trainer.trainers.diffusion.objective import encode
from lora_trainer.user_cache import CACHE_FOLDER
from tools.benches.lines import Column, Parser, Row, count_from_1, machine_of, parser_of, run_bench, tell_rows

SHAPES = ((4, 4), (3, 4), (4, 3))  # height and width in quarters of the side
BUCKET_STEP_PX = 32
VAES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"block_out_channels": [8, 8, 16, 16], "layers_per_block": 1, "norm_num_groups": 4},
    "full": {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32},
}
COLUMNS: Sequence[Column] = (
    ("pictures/s", lambda row: f"{row['pictures_per_second']:.1f}"),
    ("s per 1000", lambda row: f"{row['seconds_per_1000']:.3f}"),
    ("least s", lambda row: f"{row['least']:.3f}"),
    ("most s", lambda row: f"{row['most']:.3f}"),
    ("times", lambda row: f"{row['times']:.2f}"),
)
COMMON = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}


@dataclass(frozen=True)
class Way:
    """`ready` is not measured."""

    run: Callable[[], object]
    ready: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Setting:
    """`pictures` are those in `folder`, which also takes what is made of them."""

    folder: Path
    pictures: Sequence[Picture]
    buckets: BucketSettings
    workers: int

    @property
    def memory(self) -> Path:
        return self.folder / "memory"

    @property
    def latents(self) -> Path:
        return self.folder / "latents"


# -- looking -----------------------------------------------------------------------------------------------------------


def surveys(setting: Setting) -> dict[str, Way]:
    look = partial(survey, setting.pictures, setting.buckets, workers=setting.workers)
    forget = partial(shutil.rmtree, setting.memory, ignore_errors=True)
    return {
        "script, sizes only": Way(lambda: [size_px(picture.path) for picture in setting.pictures]),
        "headers": Way(partial(look, whole=False), forget),
        "every picture decoded": Way(look, forget),
        "a second time": Way(look, look),
    }


def size_px(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.height, image.width


# -- encoding ----------------------------------------------------------------------------------------------------------


def encodings(setting: Setting, vae: Any, batch: int) -> dict[str, Way]:
    samples = survey(setting.pictures, setting.buckets)
    settings = LatentSettings("bench", batch_size=batch, folder=setting.latents, workers=setting.workers)
    build = partial(LatentCache.build, samples, partial(encode, vae), settings)
    forget = partial(shutil.rmtree, setting.latents, ignore_errors=True)
    return {
        "script": Way(partial(script_encode, samples, vae, setting.folder / "script")),
        "cache": Way(build, forget),
        "cache, a second time": Way(build, build),
        "the VAE alone": Way(partial(vae_alone, samples, vae, batch)),
    }


@torch.no_grad()
def script_encode(samples: Sequence[Sample], vae: Any, folder: Path) -> None:
    """A loop as they are written."""
    folder.mkdir(exist_ok=True)
    for number, sample in enumerate(samples):
        image = Image.open(sample.path).convert("RGB")
        (height, width), (top, left) = sample.placement.resized_px, sample.placement.crop_top_left_px
        image = image.resize((width, height), Image.Resampling.LANCZOS)
        height, width = sample.placement.bucket_px
        pixels = np.asarray(image.crop((left, top, left + width, top + height)))
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        latents = vae.encode(tensor.to(vae.device, vae.dtype)).latent_dist.sample()
        np.savez(folder / f"{number}.npz", latents=latents[0].float().cpu().numpy())


@torch.no_grad()
def vae_alone(samples: Sequence[Sample], vae: Any, batch: int) -> None:
    """The same batches of pixels that are there already."""
    members: dict[tuple[int, int], int] = {}
    for sample in samples:
        members[sample.placement.bucket_px] = members.get(sample.placement.bucket_px, 0) + 1
    for bucket, count in members.items():
        pixels = torch.zeros(batch, 3, *bucket)
        for at in range(0, count, batch):
            torch.stack(encode(vae, pixels[: count - at])).cpu()


def random_vae(name: str, precision: torch.dtype, device: torch.device) -> Any:
    torch.manual_seed(0)
    vae = build_vae({**COMMON, **VAES[name], "latent_channels": 4, "sample_size": 256})
    vae.requires_grad_(False).eval()
    place_vae(vae, precision, device)
    return vae


# -- measuring ---------------------------------------------------------------------------------------------------------


def in_turn(ways: Mapping[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, alternating, so that what slows the machine down slows all of them."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            way.ready()
            began = time.perf_counter()
            way.run()
            found[name].append(time.perf_counter() - began)
    return found


def rows_of(what: str, found: Mapping[str, Sequence[float]], pictures: int) -> list[Row]:
    """`times` is how often as fast as the first way."""
    first = statistics.median(next(iter(found.values())))
    return [
        {
            "what": what, "way": name, "pictures": pictures, "seconds": (middle := statistics.median(seconds)),
            "least": min(seconds), "most": max(seconds), "seconds_per_1000": middle / pictures * 1000,
            "pictures_per_second": pictures / middle, "times": first / middle,
        }
        for name, seconds in found.items()
    ]  # fmt: skip


# -- the command -------------------------------------------------------------------------------------------------------


def write_pictures(folder: Path, count: int, side_px: int) -> list[Picture]:
    """Soft shapes with grain, which compress like photographs; no two are alike."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    grain = draw.normal(0, 5, (2 * side_px, 2 * side_px, 3))
    found = []
    for number in range(count):
        height, width = (side_px * quarters // 4 for quarters in SHAPES[number % len(SHAPES)])
        coarse = Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        top, left = draw.integers(0, side_px, 2)
        soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
        pixels = (soft + grain[top : top + height, left : left + width]).clip(0, 255).astype(np.uint8)
        path = folder / f"{number:06}{('.jpg', '.png')[number // len(SHAPES) % 2]}"
        Image.fromarray(pixels).save(path, quality=92, compress_level=1)
        found.append(Picture(path, path.name, folder.name, 1, ""))
    return found


def bench(options: argparse.Namespace) -> None:
    machine = machine_of(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = write_pictures(folder / "pictures", options.pictures, options.side)
        area = (options.side // 2, options.side // 2)
        buckets = BucketSettings(area, BUCKET_STEP_PX, 2 * options.side, BUCKET_STEP_PX)
        setting = Setting(folder, pictures, buckets, options.workers)
        os.environ[CACHE_FOLDER] = str(setting.memory)  # and not the person's own
        _tell(rows_of("looking", in_turn(surveys(setting), options.rounds), len(pictures)))
        for size in options.size:
            vae = random_vae(size, machine.precision.dtype, machine.device)
            vae_alone(survey(pictures, buckets), vae, options.batch)  # warms up
            found = in_turn(encodings(setting, vae, options.batch), options.rounds)
            _tell(rows_of(f"encoding, {size} VAE", found, len(pictures)))
            shutil.rmtree(setting.latents)


def _tell(rows: Sequence[Row]) -> None:
    tell_rows(rows, f"{rows[0]['what']}, {rows[0]['pictures']} pictures", COLUMNS)


def _parser() -> Parser:
    parser = parser_of("bench_cache", __doc__, VAES, batch=4, rounds=3, precision="bf16")
    parser.add_argument("--pictures", type=count_from_1, default=100, help="how many (default 100)")
    parser.add_argument("--side", type=count_from_1, default=512, help="their longer side in pixels (default 512)")
    parser.add_argument("--workers", type=count_from_1, default=WORKERS, help=f"threads that decode (here {WORKERS})")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    return run_bench(bench, _parser(), words)


if __name__ == "__main__":
    sys.exit(main())
