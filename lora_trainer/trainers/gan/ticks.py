"""The status line of a GAN's tick, and the same numbers in `stats.jsonl` and for the trackers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

log = logging.getLogger(__name__)

STATS = "stats.jsonl"
DAY_S = 24 * 60 * 60.0


@dataclass
class Ticks:
    """Counts images and seconds. What is done between the last step of a tick and the next one is its maintenance.

    `folder` is None where nothing is written: in all processes but the main one.
    """

    batch: int
    steps_per_tick: int
    total_steps: int
    device: torch.device
    folder: Path | None
    elapsed_s: float = 0.0  # of the training, in earlier processes too
    _begun: float = field(default_factory=time.perf_counter)  # the tick, or this process's part of it
    _paused: float | None = None  # when the tick before had ended
    _maintenance_s: float = 0.0
    _images: int = 0  # of the tick that this process saw

    def begin_step(self) -> None:
        now = time.perf_counter()
        if self._paused is not None:
            self._maintenance_s = now - self._paused
            self._paused = None
            self._begun = now

    def ends(self, done: int) -> bool:
        """Count a finished step, and say whether the tick ends with it."""
        self._images += self.batch
        return done % self.steps_per_tick == 0 or done == self.total_steps

    def tell(self, done: int, losses: Mapping[str, Mapping[str, float]], augment: float) -> dict[str, float]:
        """Write the line of the tick that ends here, and give its numbers for the trackers."""
        now = time.perf_counter()
        seconds = now - self._begun
        self.elapsed_s += seconds + self._maintenance_s
        values = {
            "Progress/tick": float(-(-done // self.steps_per_tick)),
            "Progress/kimg": done * self.batch / 1000,
            "Progress/augment": augment,
            "Timing/total_sec": self.elapsed_s,
            "Timing/sec_per_tick": seconds,
            "Timing/sec_per_kimg": seconds / self._images * 1000,
            "Timing/maintenance_sec": self._maintenance_s,
            "Timing/total_hours": self.elapsed_s / 3600,
            "Timing/total_days": self.elapsed_s / DAY_S,
            "Resources/cpu_mem_gb": psutil.Process().memory_info().rss / 2**30,
            **_gpu_memory(self.device),
        }
        if self.folder is not None:
            rows = {name: {"num": 1, "mean": value, "std": 0.0} for name, value in values.items()}
            row = {**losses, **rows, "step": done, "timestamp": time.time()}
            with (self.folder / STATS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            log.info("%s", status_line(values))
        self._begun = self._paused = time.perf_counter()
        self._maintenance_s, self._images = 0.0, 0
        return values | {name: each["mean"] for name, each in losses.items()}

    def state_dict(self) -> dict[str, Any]:
        since = time.perf_counter() - self._begun
        return {"elapsed_s": self.elapsed_s + self._maintenance_s + since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.elapsed_s = float(state["elapsed_s"])


def status_line(values: Mapping[str, float]) -> str:
    """As users of StyleGAN know it."""
    reserved = values.get("Resources/peak_gpu_mem_reserved_gb", 0.0)
    return "  ".join(
        [
            f"tick {values['Progress/tick']:<5.0f}",
            f"kimg {values['Progress/kimg']:<8.1f}",
            f"time {spoken_duration(values['Timing/total_sec']):<12s}",
            f"sec/tick {values['Timing/sec_per_tick']:<7.1f}",
            f"sec/kimg {values['Timing/sec_per_kimg']:<7.2f}",
            f"maintenance {values['Timing/maintenance_sec']:<6.1f}",
            f"cpumem {values['Resources/cpu_mem_gb']:<6.2f}",
            f"gpumem {values.get('Resources/peak_gpu_mem_gb', 0.0):<6.2f}",
            f"reserved {reserved:<6.2f}",
            f"augment {values['Progress/augment']:.3f}",
        ]
    )


def spoken_duration(seconds: float) -> str:
    """45s, 3m 05s, 2h 03m 05s, 1d 02h 03m."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // (24 * 3600)
    if days:
        return f"{days}d {hours % 24:02d}h {minutes % 60:02d}m"
    if hours:
        return f"{hours}h {minutes % 60:02d}m {whole % 60:02d}s"
    return f"{minutes}m {whole % 60:02d}s" if minutes else f"{whole}s"


def _gpu_memory(device: torch.device) -> dict[str, float]:
    if device.type != "cuda":
        return {}
    return {
        "Resources/peak_gpu_mem_gb": torch.cuda.max_memory_allocated(device) / 2**30,
        "Resources/peak_gpu_mem_reserved_gb": torch.cuda.max_memory_reserved(device) / 2**30,
    }
