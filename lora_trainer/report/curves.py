"""The numbers of metrics.jsonl as curves over the steps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

SHOWN_POINTS = 400
NO_CURVES = ("step", "epoch")
ENDS = 0.1  # the share of a curve whose middle value stands for its begin or its end


@dataclass(frozen=True)
class Curve:
    """A number over the steps, in their order. What is not finite stays in it and is a gap in the picture."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    @cached_property
    def finite(self) -> tuple[tuple[int, float], ...]:
        pairs = zip(self.steps, self.values, strict=True)
        return tuple((step, value) for step, value in pairs if math.isfinite(value))

    @property
    def bad(self) -> int:
        """How many values are not finite."""
        return len(self.values) - len(self.finite)

    @property
    def last(self) -> float | None:
        return self.finite[-1][1] if self.finite else None

    def best(self, higher: bool) -> tuple[int, float] | None:
        """The first step with the best value, and the value."""
        if not self.finite:
            return None
        sign = -1 if higher else 1
        return min(self.finite, key=lambda pair: (sign * pair[1], pair[0]))

    def ends(self) -> tuple[float, float] | None:
        """The middle values of the first and of the last tenth: single values of a loss say little."""
        values = [value for _, value in self.finite]
        if len(values) < 2:
            return None
        count = max(1, min(round(len(values) * ENDS), len(values) // 2))
        return _middle(values[:count]), _middle(values[-count:])


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The objects of the file's lines; a half line that a kill left is passed over."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            return list(_rows(lines))
    except OSError:
        return []


def _rows(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row


def curves_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """By name, in the order in which they appear. Of a step that was made twice the later numbers count."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in NO_CURVES and isinstance(value, (int, float)) and not isinstance(value, bool):
                found.setdefault(name, {})[row["step"]] = float(value)
    return {name: Curve(name, tuple(sorted(at)), tuple(at[step] for step in sorted(at))) for name, at in found.items()}


def thinned(curve: Curve, most: int = SHOWN_POINTS) -> Curve:
    """At most about so many points: of each stretch the least and the greatest value, so that no spike is lost."""
    count = len(curve.steps)
    if count <= most:
        return curve
    stretches = most // 2
    kept = {0, count - 1}
    for number in range(stretches):
        places = range(number * count // stretches, (number + 1) * count // stretches)
        finite = [place for place in places if math.isfinite(curve.values[place])]
        if finite:
            kept |= {min(finite, key=curve.values.__getitem__), max(finite, key=curve.values.__getitem__)}
        if len(finite) < len(places):
            kept.add(next(place for place in places if not math.isfinite(curve.values[place])))
    chosen = sorted(kept)
    return Curve(
        curve.name, tuple(curve.steps[place] for place in chosen), tuple(curve.values[place] for place in chosen)
    )


def smoothed(curve: Curve, window: int) -> Curve:
    """The mean over so many neighbours on both sides together, without those that are not finite."""
    steps, values = tuple(step for step, _ in curve.finite), [value for _, value in curve.finite]
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    half, means = window // 2, []
    for place in range(len(values)):
        first, last = max(0, place - half), min(len(values), place + half + 1)
        means.append((sums[last] - sums[first]) / (last - first))
    return Curve(curve.name, steps, tuple(means))


def _middle(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
