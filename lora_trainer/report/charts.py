"""A chart as SVG that takes its colours from the page, so that one picture serves light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

from lora_trainer.report.chart_groups import MEASURED, RATE, Chart
from lora_trainer.report.curves import Curve, smoothed, thinned

SIZE_IN = (4.4, 2.35)  # small, so that letters can be read on a phone
MARGINS = (0.135, 0.15, 0.85, 0.8)  # left, bottom, width, height
SMOOTH_FROM, SMOOTH_SHARE = 60, 25  # points of a curve, and the part of it that is averaged
FLAT, FLAT_SHOWN = 0.002, 0.2  # shares of the value: what counts as no change, and what is shown around it
INK, FAINT = "#010101", "#020202"  # stand for the page's colours
LINES = tuple(f"#03030{number}" for number in range(8))
STYLES = ("-", "-", "-", "-", "--", "--", "--", "--")
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lora_trainer",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "path.simplify": True,
}
MISSING = 'matplotlib is not installed; `pip install "lora_trainer[report]"` draws the curves'


class NoPlottingError(Exception):
    """The library that draws curves is not there."""


def draw(chart: Chart, mark: str, last_step: int) -> str:
    """A chart over the steps; all charts of a page end at the same one. Raises NoPlottingError."""

    def plot(axes: Any) -> None:
        _plot(axes, chart)
        axes.set_xlim(-0.02 * last_step, 1.02 * last_step + 0.1)

    return as_svg(plot, mark)


def as_svg(plot: Callable[[Any], None], mark: str) -> str:
    """The SVG element of what is plotted on matplotlib's axes, in INK, FAINT and LINES.

    Its names begin with the mark, another for each chart of a page. Raises NoPlottingError.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoPlottingError(MISSING) from error
    buffer = io.StringIO()
    with rc_context(SETTINGS):  # type: ignore[arg-type]
        figure = Figure(figsize=SIZE_IN)
        FigureCanvasSVG(figure)
        axes = figure.add_axes(MARGINS)
        plot(axes)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _of_the_page(buffer.getvalue(), mark)


def _plot(axes: Any, chart: Chart) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    noisy = chart.part != MEASURED and chart.title != RATE
    for number, _, curve in chart.numbered:
        colour, style = LINES[number], STYLES[number]
        for each, width, alpha in _strokes(curve, noisy=noisy):
            dots = {"marker": "o", "markersize": 2.5} if len(each.finite) <= 30 else {}
            axes.plot(each.steps, each.values, style, color=colour, linewidth=width, alpha=alpha, **dots)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if chart.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(_heights(chart, axes.get_ylim()))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    dress(axes)


def dress(axes: Any) -> None:
    """A faint grid, and no frame at the top and the right."""
    axes.grid(True, color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=2)


def _heights(chart: Chart, chosen: tuple[float, float]) -> tuple[float, float]:
    """A number that hardly changes is a flat line, and no picture of its last digits."""
    values = [value for curve in chart.lines.values() for _, value in curve.finite]
    middle, spread = (max(values) + min(values)) / 2 if values else 0.0, max(values) - min(values) if values else 0.0
    if not values or spread > FLAT * abs(middle):
        return chosen
    around = FLAT_SHOWN * abs(middle) or 1.0
    return middle - around, middle + around


def _strokes(curve: Curve, *, noisy: bool) -> Iterator[tuple[Curve, float, float]]:
    """What is drawn of a curve, with width and opacity: a long one that is noisy is faint below its mean."""
    if not noisy or len(curve.finite) < SMOOTH_FROM:
        yield thinned(curve), 1.4, 1.0
        return
    yield thinned(curve), 0.6, 0.35
    yield thinned(smoothed(curve, len(curve.finite) // SMOOTH_SHARE)), 1.6, 1.0


def _of_the_page(svg: str, mark: str) -> str:
    """Without what only a file of its own needs, in the page's colours and letters."""
    svg = svg[svg.index("<svg") :]
    for pattern, by in _UNNEEDED:
        svg = pattern.sub(by, svg)
    svg = _TAG.sub(lambda tag: _LONG.sub(r"\1", tag[0]), svg)
    svg = _NAMES.sub(rf"\g<1>{mark}-\g<2>", svg)
    return _COLOUR.sub(lambda match: _COLOURS[match[0]], svg)


_UNNEEDED = tuple(
    (re.compile(pattern, re.DOTALL), by)
    for pattern, by in (
        (r"<metadata>.*?</metadata>", ""),
        (r"<style[^>]*>.*?</style>", ""),
        (r'(<svg[^>]*?) width="[^"]*"', r"\1"),
        (r'(<svg[^>]*?) height="[^"]*"', r"\1"),
        (r'<g id="[^"]*">', "<g>"),
        (r" font-family: [^;]*;", ""),
        (r'font: ([\d.]+)px [^;"]*', r"font-size: \1px"),  # as matplotlib wrote it before 3.11
        (r"\n\s*", "\n"),
    )
)
_TAG, _LONG = re.compile(r"<[^>]*>"), re.compile(r"(\d\.\d)\d+")  # places of half a thousandth of an inch
_NAMES = re.compile(r'( id="|href="#|url\(#)(\w+)')
_COLOURS = {INK: "var(--ink)", FAINT: "var(--faint)"} | {
    colour: f"var(--line{number})" for number, colour in enumerate(LINES)
}
_COLOUR = re.compile("|".join(map(re.escape, _COLOURS)))
