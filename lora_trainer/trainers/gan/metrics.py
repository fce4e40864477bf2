"""Measuring a GAN's averaged generator at its snapshots: networks, progress, and the lines of metric-*.jsonl."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lora_trainer.data.labelled_images import LabelledImages
from lora_trainer.engine.console import PLAIN_EVERY_S, spoken_time
from lora_trainer.engine.signals import stop_requested
from lora_trainer.losses.feature_networks import FeatureNetwork, open_network
from lora_trainer.models.gan.mapping import Generator
from lora_trainer.trainers.gan.fakes import Fakes
from lora_trainer.trainers.gan.features import Alone, Interrupted, Team, Watch
from lora_trainer.trainers.gan.job import GanJob
from lora_trainer.trainers.gan.metric_checks import TRACKED
from lora_trainer.trainers.gan.metric_table import GAN_METRICS, IMAGES, Measuring, honest_name, reals_of
from lora_trainer.trainers.gan.ticks import spoken_duration

log = logging.getLogger(__name__)

CACHE = "metrics"  # a folder in that of the run
PASSES_AT_A_TIME = 4  # of the training, as no activations are kept
MOST_AT_A_TIME = 64


@dataclass(frozen=True)
class GanMetrics:
    """What is measured of a training. `folder` gets the lines; `images` is how many are drawn, `at_a_time` together."""

    names: tuple[str, ...]
    reals: LabelledImages
    networks: Mapping[str, FeatureNetwork]
    images: int
    at_a_time: int
    seed: int
    folder: Path
    cache: Path
    device: torch.device
    team: Team = field(default_factory=Alone)

    @classmethod
    def build(cls, job: GanJob, device: torch.device, team: Team | None = None) -> GanMetrics | None:
        """Loads the networks. None where nothing is measured; raises Refusal for a file that is none of them."""
        preset, folder = job.preset, Path(job.preset.output_dir)
        if not preset.measured:
            return None
        networks = {key: open_network(key, getattr(preset, key)) for key in preset.metric_networks}
        together = min(MOST_AT_A_TIME, PASSES_AT_A_TIME * preset.images_per_pass(job.world))
        cache = Path(preset.metric_cache or folder / CACHE)
        return cls(
            preset.measured, job.images, networks, preset.metric_images or IMAGES, together, job.seed, folder, cache,
            device, team or Alone(),
        )  # fmt: skip

    def measure(self, generator: Generator, done: int, snapshot: str = "") -> dict[str, float]:
        """All numbers of the generator as it is, `done` steps old, by the names for the trackers.

        Fewer when the run is told to stop meanwhile. Of several processes all must call it; the first one writes.
        """
        found: dict[str, float] = {}
        fakes = Fakes(generator, self.reals, self.seed, self.device)
        for name in self.names:
            began = time.perf_counter()
            shown, network = self._shown(name), self.networks.get(GAN_METRICS[name].network)
            try:
                results = self._results(name, shown, fakes, network)
            except Interrupted:
                log.info("%s is not finished, as the run is to stop", shown)
                break
            if self.team.rank == 0:
                self._write(shown, results, time.perf_counter() - began, done, snapshot, shown == name)
            found |= {TRACKED + result: value for result, value in results.items()}
        return found

    def _shown(self, name: str) -> str:
        network = self.networks.get(GAN_METRICS[name].network)
        return honest_name(name, self.images, network.mark if network else "")

    def _results(self, name: str, shown: str, fakes: Fakes, network: FeatureNetwork | None) -> dict[str, float]:
        metric = GAN_METRICS[name]
        if network is not None:
            network.module.to(self.device)  # only now, as its memory is the training's in between
        try:
            watch = Watch(_Progress(shown).tell, stop_requested)
            measuring = Measuring(fakes, self.reals, network, self.images, self.at_a_time, self.team, self.cache, watch)
            values = metric.measure(measuring, reals_of(name, self.reals))
        finally:
            if network is not None:
                network.module.to("cpu")
        return {shown + result: value for result, value in zip(metric.results, values, strict=True)}

    def _write(
        self, shown: str, results: Mapping[str, float], seconds: float, done: int, snapshot: str, usual: bool
    ) -> None:
        row: dict[str, Any] = {
            "results": dict(results),
            "metric": shown,
            "comparable": usual,  # with what others published under this name
            "total_time": seconds,
            "total_time_str": spoken_duration(seconds),
            "num_gpus": self.team.world,
            "snapshot_pkl": snapshot,
            "step": done,
            "timestamp": time.time(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"metric-{shown}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        told = ", ".join(f"{result} {value:.4g}" for result, value in results.items())
        hint = "" if usual else "; not comparable with published numbers"
        log.info("%s (%s%s)", told, spoken_duration(seconds), hint)


class _Progress:
    """A line every ten seconds."""

    def __init__(self, name: str) -> None:
        self.name, self.what = name, ""
        self._began = self._said = time.monotonic()

    def tell(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self.what:
            self.what, self._began, self._said = what, now, now
        elif now - self._said >= PLAIN_EVERY_S:
            self._said = now
            left = (now - self._began) / done * (total - done)
            log.info("%s: %d of %d %s, %s left", self.name, done, total, what, spoken_time(left))
