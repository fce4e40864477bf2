"""The charts of a data set: sizes, what is cut away, by how much pictures grow, how long captions are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lora_trainer.data.buckets import Size
from lora_trainer.data.doctor.examination import Examination
from lora_trainer.data.doctor.fit import MUCH_LOST
from lora_trainer.data.doctor.rules import BucketRules
from lora_trainer.report.charts import INK, LINES, NoPlottingError, as_svg, dress
from lora_trainer.report.doctor.set_findings import enlargements, lost_shares

MOST_POINTS, MOST_TICKS = 300, 7  # of sizes, where more are rounded, and of an axis
BINS, FEWEST = 20, 8  # of a histogram, and what it needs
TICKS_PX = tuple(tick for power in range(4, 15) for tick in (2**power, 3 * 2 ** (power - 1)))
LARGEST_AREA, SMALLEST_AREA = 90, 9  # of a point, in square points
Plot = Callable[[Any], None]


@dataclass(frozen=True)
class Drawn:
    """`alt` is for those who do not see it."""

    title: str
    svg: Markup
    alt: str


def draw_all(found: Examination) -> tuple[dict[str, Drawn], str]:
    """The charts by the section that they stand in, and what to say where they cannot be drawn."""
    wanted = {
        name: each
        for name, each in (
            ("sizes", _sizes(found)),
            ("cropping", _cropping(found)),
            ("buckets", _growth(found)),
            ("captions", _lengths(found)),
        )
        if each is not None
    }
    drawn: dict[str, Drawn] = {}
    for name, (title, plot, alt) in wanted.items():
        try:
            drawn[name] = Drawn(title, Markup(as_svg(plot, f"d-{name}")), alt)  # of numbers alone
        except NoPlottingError as error:
            return {}, str(error)
    return drawn, ""


def gathered(sizes: Sequence[Size]) -> Counter[Size]:
    """How many pictures each size has; of very many sizes, near ones are counted together."""
    counts = Counter(sizes)
    step = 1.02
    while len(counts) > MOST_POINTS:
        counts = Counter((_rounded(height, step), _rounded(width, step)) for height, width in sizes)
        step += 0.02
    return counts


def _rounded(side: int, step: float) -> int:
    return round(step ** round(math.log(side) / math.log(step)))


def _sizes(found: Examination) -> tuple[str, Plot, str] | None:
    sizes = [found.looks[number].size_px for number in found.pictures if not found.looks[number].problem]
    counts = gathered(sizes)
    if len(counts) < 2:
        return None
    rules = found.dataset.rules
    area = math.prod(rules.settings[0].resolution_px) if isinstance(rules, BucketRules) and rules.settings else 0
    most = max(counts.values())

    def plot(axes: Any) -> None:
        widths, heights = [width for _, width in counts], [height for height, _ in counts]
        areas = [max(SMALLEST_AREA, LARGEST_AREA * count / most) for count in counts.values()]
        axes.scatter(widths, heights, s=areas, color=LINES[0], alpha=0.6, linewidths=0)
        low, high = min(*widths, *heights) / 1.2, max(*widths, *heights) * 1.2
        if area:
            low, high = min(low, math.sqrt(area) / 1.5), max(high, math.sqrt(area) * 1.5)
            edge = [low * (high / low) ** (step / 40) for step in range(41)]
            axes.plot(edge, [area / width for width in edge], color=LINES[1], linewidth=1.2)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        for axis in (axes.xaxis, axes.yaxis):
            _pixels(axis, low, high)
        axes.set_xlabel("width, px", color=INK, labelpad=3)
        axes.set_ylabel("height, px", color=INK, labelpad=8)
        axes.set_position((0.19, 0.21, 0.79, 0.74))
        dress(axes)

    line = "; the line is the resolution's area" if area else ""
    return f"Width and height{line}", plot, f"{len(set(sizes))} different sizes as points of width and height"


def _pixels(axis: Any, low: float, high: float) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    ticks = [tick for tick in TICKS_PX if low <= tick <= high]
    if len(ticks) > MOST_TICKS:
        ticks = [tick for tick in ticks if tick.bit_count() == 1]
    while len(ticks) > MOST_TICKS:
        ticks = ticks[::2]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([str(tick) for tick in ticks]))
    axis.set_minor_locator(NullLocator())


def _cropping(found: Examination) -> tuple[str, Plot, str] | None:
    lost = [100 * value for value in lost_shares(found).values()]
    if len(lost) < FEWEST or max(lost) < 0.05:
        return None
    title = "Pictures by the share that is cut away, in %"
    return title, _histogram(lost, 100 * MUCH_LOST, whole=False), f"{len(lost)} pictures by the share that is cut away"


def _growth(found: Examination) -> tuple[str, Plot, str] | None:
    grown = list(enlargements(found).values())
    if len(grown) < FEWEST:
        return None
    return (
        "Enlarged pictures, by how many times",
        _histogram(grown, None, whole=False),
        "how much pictures are enlarged",
    )


def _lengths(found: Examination) -> tuple[str, Plot, str] | None:
    captions, rules = found.captions, found.dataset.captions
    if captions is None or rules is None or len(captions.tokens) < FEWEST:
        return None
    lengths = [float(count) for count in captions.tokens.values()]
    shows_limit = _reaches(lengths, rules.limit)
    title = "Captions by tokens" + (f"; the line is the limit of {rules.limit}" if shows_limit else "")
    return title, _histogram(lengths, float(rules.limit), whole=True), "how long the captions are"


def _reaches(values: Sequence[float], line: float) -> bool:
    """Whether a line is near enough to be drawn beside them."""
    return line <= 1.5 * max(values)


def _histogram(values: Sequence[float], line: float | None, *, whole: bool) -> Plot:
    def plot(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        low, high = min(values), max(values)
        bins = min(BINS, int(high - low) + 1) if whole else BINS
        edges = (low - 0.5, high + 0.5) if whole else (low, high + 1e-6)
        axes.hist(values, bins=bins, range=edges, color=LINES[0])
        if line is not None and _reaches(values, line):
            axes.axvline(line, color=LINES[1], linewidth=1.4)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        dress(axes)

    return plot
