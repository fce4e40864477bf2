"""Which curves share a chart, and in which part of the page it stands."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lora_trainer.report.curves import Curve

MOST_LINES, MOST_CHARTS = 8, 28
TIMESTEP = re.compile(r"(?P<what>.+)_t(?P<timestep>\d+)")
NETWORK = re.compile(r"([A-Z])_")  # G_l1 is a term of the network G
WIDE = 30.0  # where losses differ by more than this factor, steps of ten are of equal height


@dataclass(frozen=True)
class Chart:
    """Curves by what the legend calls them. `part` is the heading on the page, `logarithmic` the height. `colours` are
    the numbers of the lines' colours where they are not those of their order."""

    part: str
    title: str
    lines: dict[str, Curve] = field(default_factory=dict)
    logarithmic: bool = False
    colours: tuple[int, ...] = ()

    @property
    def numbered(self) -> list[tuple[int, str, Curve]]:
        """The number of its colour, the name and the curve of each line."""
        colours = self.colours or range(len(self.lines))
        return [(colour, name, curve) for colour, (name, curve) in zip(colours, self.lines.items(), strict=True)]


MAIN, MEASURED, TERMS, RATES, MACHINE, MORE = (
    "Loss", "Validation", "Terms of the loss", "Learning rates and gradients", "Speed and memory", "Other numbers",
)  # fmt: skip
RATE = "Learning rate"
BY_TIMESTEP = "by timestep"  # before the slash, in the names of a diffusion training
PARTS = (MEASURED, MAIN, TERMS, RATES, MACHINE, MORE)
TITLES = {"images_per_second": "Images a second", "memory_gib": "Memory (GiB)"}


def charts_of(curves: Mapping[str, Curve], measured: Collection[str] = ()) -> list[Chart]:
    """In the order of the page. `measured` are the names that validation gives besides `val/...`."""
    phases = {name.removesuffix("/loss") for name in curves if name.endswith("/loss")}
    grouped: dict[tuple[str, str], dict[str, Curve]] = {}
    totals = [curve for name, curve in curves.items() if _place(name, phases, measured)[0] == MAIN]
    for name, curve in curves.items():
        part, title, label = _place(name, phases, measured)
        if part == TERMS and any(curve.values == total.values for total in totals):
            continue  # the sum of the terms under a second name
        grouped.setdefault((part, title), {})[label] = curve
    found = []
    for (part, title), lines in sorted(grouped.items(), key=lambda item: PARTS.index(item[0][0])):
        names = list(lines)
        for start in range(0, len(names), MOST_LINES):
            chosen = {name: lines[name] for name in names[start : start + MOST_LINES]}
            number = f" ({start // MOST_LINES + 1})" if len(names) > MOST_LINES else ""
            found.append(Chart(part, title + number, chosen, part in (MAIN, TERMS) and _wide(chosen)))
    return found[:MOST_CHARTS]


def _place(name: str, phases: Collection[str], measured: Collection[str]) -> tuple[str, str, str]:
    """The part of the page, the chart's title, and the line's name in it."""
    first, _, rest = name.partition("/")
    last = name.rpartition("/")[2]
    if first == "val" or name in measured:
        return _measured_place(name)
    if name == "loss" or (last == "loss" and first in phases):
        return MAIN, "Loss", name
    if name in TITLES:
        return MACHINE, TITLES[name], name
    if first == "lr":
        return RATES, RATE, rest
    if last == "grad_norm":
        return RATES, "Norm of the gradient", first if rest else "all"
    if first == BY_TIMESTEP:
        return TERMS, "Loss by timestep, unweighted", rest
    if first == "grad_norm":
        return RATES, "Norm of the gradient by layer", rest
    if first in ("Progress", "Timing", "Resources", "Loss"):
        return MORE, first if first != "Loss" else "Loss, by tick", rest
    if rest and first in phases:
        return TERMS, f"Terms of {first}", rest
    if first == "loss" or not rest:
        network = NETWORK.match(rest)
        return TERMS, f"Terms of {network[1]}" if network else "Terms of the loss", rest or name
    return MORE, first, rest


def _measured_place(name: str) -> tuple[str, str, str]:
    """val/Blur/PSNR is the line Blur of the chart PSNR; loss/val the line val of the chart loss."""
    parts = name.removeprefix("val/").split("/")
    what, label = parts[-1], "/".join(parts[:-1]) or "all"
    if len(parts) > 1 and not name.startswith("val/"):
        what, label = parts[0], "/".join(parts[1:])
        if what == "Metrics":
            what = label
    if (match := TIMESTEP.fullmatch(what)) is not None:
        return MEASURED, f"{match['what']} by timestep", f"timestep {match['timestep']}"
    return MEASURED, what, label


def _wide(lines: Mapping[str, Curve]) -> bool:
    values = [value for curve in lines.values() for _, value in curve.finite]
    return bool(values) and min(values) > 0 and max(values) / min(values) > WIDE
