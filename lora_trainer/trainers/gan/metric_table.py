"""What measures a GAN, by the names that its users know: how many images each takes, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lora_trainer.data.labelled_images import LabelledImages
from lora_trainer.draws import uniform
from lora_trainer.losses.equivariance import EQUIVARIANCES, decibels
from lora_trainer.losses.feature_networks import INCEPTION, VGG, FeatureNetwork
from lora_trainer.losses.frechet_distance import frechet_distance
from lora_trainer.losses.inception_score import inception_score
from lora_trainer.losses.kernel_distance import kernel_distance
from lora_trainer.losses.perceptual_path_length import as_measured, end_points, mean_path_length, path_distances
from lora_trainer.losses.precision_recall import precision_recall
from lora_trainer.models.gan.fourier_input import FourierInput
from lora_trainer.trainers.gan.fakes import STREAM, Fakes
from lora_trainer.trainers.gan.features import Gallery, Images, Team, Watch, kept

NO_NETWORK = ""
IMAGES = 50_000  # that the names speak of
MOST_REALS = 50_000
SHIFTED_TOGETHER = 4  # images that share a shift or an angle
READERS = 4


@dataclass(frozen=True)
class Measuring:
    """All that a metric may need. `images` is how many fakes are looked at, `at_a_time` how many together."""

    fakes: Fakes
    reals: LabelledImages
    network: FeatureNetwork | None
    images: int
    at_a_time: int
    team: Team
    cache: Path
    watch: Watch

    @property
    def seer(self) -> FeatureNetwork:
        assert self.network is not None
        return self.network

    @cached_property
    def fake_gallery(self) -> Gallery:
        return self.gallery("generated images", self.fakes.images, self.images)

    def gallery(self, what: str, images: Images, count: int, at_a_time: int = 0) -> Gallery:
        return Gallery(what, images, count, at_a_time or self.at_a_time, self.team, self.fakes.device)

    def real_gallery(self, count: int) -> Gallery:
        return self.gallery("real images", self._real_images, count)

    def of_reals(self, what: str, count: int, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Kept from an earlier measurement, or made now."""
        mirrored = count > len(self.reals.names)
        return kept(self.cache, (what, self.reals.digest, count, mirrored, self.seer.identity), self.team, make)

    def _real_images(self, items: Sequence[int]) -> Tensor:
        with ThreadPoolExecutor(READERS) as pool:
            pixels = np.stack(list(pool.map(self.reals.image, items)))
        return torch.from_numpy(pixels).to(self.fakes.device)


@dataclass(frozen=True)
class GanMetric:
    """`network` is the preset's key for what it sees with; `results` are its numbers and whether higher is better.

    `reals` is how many real images are looked at, None for all of them, without the mirrored ones.
    """

    network: str
    measure: Callable[[Measuring, int], tuple[float, ...]]
    results: Mapping[str, bool] = field(default_factory=lambda: {"": False})
    reals: int | None = None
    moves_input: bool = False  # of the generator
    mixes_ws: bool = False


def _frechet(measuring: Measuring, reals: int) -> tuple[float, ...]:
    see, watch = measuring.seer.features, measuring.watch

    def make() -> dict[str, Tensor]:
        found = measuring.real_gallery(reals).moments(see, watch)
        return {"mean": found.mean, "covariance": found.covariance}

    real = measuring.of_reals("moments", reals, make)
    fake = measuring.fake_gallery.moments(see, watch)
    at = fake.mean.device
    return (frechet_distance(real["mean"].to(at), real["covariance"].to(at), fake.mean, fake.covariance),)


def _real_and_fake_features(measuring: Measuring, reals: int) -> tuple[Tensor, Tensor]:
    see, watch = measuring.seer.features, measuring.watch
    real = measuring.of_reals(
        "features", reals, lambda: {"features": measuring.real_gallery(reals).features(see, watch)}
    )
    fake = measuring.fake_gallery.features(see, watch)
    return real["features"].to(fake.device), fake


def _kernel(measuring: Measuring, reals: int) -> tuple[float, ...]:
    return (kernel_distance(*_real_and_fake_features(measuring, reals), seed=0),)


def _precision_recall(measuring: Measuring, reals: int) -> tuple[float, ...]:
    return precision_recall(*_real_and_fake_features(measuring, reals))


def _inception_score(measuring: Measuring, reals: int) -> tuple[float, ...]:
    return inception_score(measuring.fake_gallery.features(measuring.seer.probabilities, measuring.watch))


def _path_length(measuring: Measuring, reals: int) -> tuple[float, ...]:
    fakes, seer = measuring.fakes, measuring.seer

    @torch.no_grad()
    def distances(numbers: Sequence[int]) -> Tensor:
        """(b, 1): of each pair, whose noise is the same at both ends."""
        ends = end_points(fakes.ws(numbers), fakes.ws(numbers, " of the other end"))
        noise = {name: value.repeat(2, 1) for name, value in fakes.noise(numbers).items()}
        images = fakes.generator.synthesis(torch.cat(ends), force_fp32=True, **noise)
        seen = seer.perceptual(as_measured(images)).double()
        first, second = seen.chunk(2)
        return path_distances(first, second)[:, None]

    gallery = measuring.gallery("pairs of images", distances, measuring.images, max(1, measuring.at_a_time // 2))
    return (mean_path_length(gallery.features(lambda found: found, measuring.watch)),)


def _equivariance(name: str) -> Callable[[Measuring, int], tuple[float, ...]]:
    kind = EQUIVARIANCES[name]

    def measure(measuring: Measuring, reals: int) -> tuple[float, ...]:
        fakes = measuring.fakes
        synthesis = fakes.generator.synthesis
        origin = synthesis.input
        assert isinstance(origin, FourierInput)  # only StyleGAN3 is measured so

        def painted(ws: Tensor) -> Tensor:
            return torch.cat([synthesis(part).float() for part in torch.split(ws, measuring.at_a_time)])

        @torch.no_grad()
        def errors(groups: Sequence[int]) -> Tensor:
            """(1, 2): the squared errors of one group of images, and over how many values."""
            (group,) = groups
            numbers = range(group * SHIFTED_TOGETHER, (group + 1) * SHIFTED_TOGETHER)
            parts = [uniform(fakes.seed, STREAM, name, group, axis) * 2 - 1 for axis in ("first", "second")]
            motion = kind.draw((parts[0], parts[1]), fakes.resolution)
            ws = fakes.ws(numbers)
            before = origin.transform
            try:
                origin.transform = torch.eye(3, device=ws.device)
                still = painted(ws)
                origin.transform = motion.transform.to(ws)
                moved = painted(ws)
            finally:
                origin.transform = before
            return torch.stack(kind.squares(still, moved, motion))[None]

        gallery = measuring.gallery("groups of images", errors, max(1, measuring.images // SHIFTED_TOGETHER), 1)
        squares, count = gallery.features(lambda found: found, measuring.watch).double().sum(0).tolist()
        return (decibels(squares, count),)

    return measure


_SURE = {"_mean": True, "_std": False}
_SHARES = {"_precision": True, "_recall": True}
_DECIBELS = {"": True}
GAN_METRICS: Mapping[str, GanMetric] = {
    "fid50k_full": GanMetric(INCEPTION, _frechet),
    "kid50k_full": GanMetric(INCEPTION, _kernel),
    "pr50k3_full": GanMetric(VGG, _precision_recall, _SHARES),
    "ppl2_wend": GanMetric(VGG, _path_length, mixes_ws=True),
    "eqt50k_int": GanMetric(NO_NETWORK, _equivariance("eqt_int"), _DECIBELS, moves_input=True),
    "eqt50k_frac": GanMetric(NO_NETWORK, _equivariance("eqt_frac"), _DECIBELS, moves_input=True),
    "eqr50k": GanMetric(NO_NETWORK, _equivariance("eqr"), _DECIBELS, moves_input=True),
    "fid50k": GanMetric(INCEPTION, _frechet, reals=MOST_REALS),
    "kid50k": GanMetric(INCEPTION, _kernel, reals=MOST_REALS),
    "pr50k3": GanMetric(VGG, _precision_recall, _SHARES, reals=MOST_REALS),
    "is50k": GanMetric(INCEPTION, _inception_score, _SURE),
}
MOST_FOR_FEATURES: Mapping[str, int] = {"kid50k_full": 1_000_000, "pr50k3_full": 200_000}  # even of a full set


def honest_name(name: str, images: int, mark: str) -> str:
    """The name with the number of images that were drawn, and the mark of a network that is not the usual one.

    fid50k_full of 2000 images by the stand-in is fid2k_full_standin.
    """
    if images != IMAGES:
        count = f"{images / 1000:g}k"
        name = name.replace("50k", count) if "50k" in name else f"{name}_{count}"
    return f"{name}_{mark}" if mark else name


def reals_of(name: str, reals: LabelledImages) -> int:
    """How many real images a metric looks at, the first ones of the set."""
    limit = GAN_METRICS[name].reals
    if limit is None:
        return min(len(reals.names), MOST_FOR_FEATURES.get(name, len(reals.names)))
    return min(len(reals), limit)
