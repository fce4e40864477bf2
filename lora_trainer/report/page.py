"""The HTML of a report; everything that people wrote is escaped by the templates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lora_trainer.report.chart_groups import MEASURED, MORE, Chart, charts_of
from lora_trainer.report.charts import NoPlottingError, draw
from lora_trainer.report.curves import Curve
from lora_trainer.report.next_steps import next_steps
from lora_trainer.report.run_files import RunFiles
from lora_trainer.report.verdict import STATES, figures_of, number, sentences_of

GUESSED = "A training"  # of which no facts were written


@dataclass(frozen=True)
class Line:
    """A row of a chart's legend."""

    number: int
    name: str
    last: str
    extremes: str


@dataclass(frozen=True)
class Drawing:
    part: str
    title: str
    svg: Markup
    lines: tuple[Line, ...]


def render(run: RunFiles) -> tuple[str, str]:
    """The page, and a remark where it lacks something."""
    status, curves, facts = run.status, run.curves, run.facts
    higher = facts.higher_is_better if facts else {}
    last_step = max((curve.steps[-1] for curve in curves.values()), default=0)
    charts, remark = drawings(charts_of(curves, higher), last_step)
    state = str(status.get("state"))
    when = status.get("time")
    page = templates().get_template("report.html").render(
        name=run.name,
        state=state,
        state_word=STATES.get(state, state),
        title=title_of(run),
        ended=datetime.fromtimestamp(when).strftime("%Y-%m-%d %H:%M") if isinstance(when, (int, float)) else "",
        figures=figures_of(status, curves, higher),
        sentences=sentences_of(status, curves),
        steps=next_steps(status, facts, run.best_file),
        gallery=run.gallery,
        charts=[chart for chart in charts if chart.part != MORE],
        more_charts=[chart for chart in charts if chart.part == MORE],
        more=MORE,
        measured=MEASURED,
        remark=remark,
        facts=facts,
        values=json.dumps(dict(facts.values), indent=1, ensure_ascii=False) if facts else "",
        seed=status.get("seed"),
    )  # fmt: skip
    return page, remark


def title_of(run: RunFiles) -> str:
    """What was trained on what, as far as it is known."""
    if run.facts:
        return run.facts.material.title
    fingerprint = run.status.get("fingerprint")
    trainer = fingerprint.get("trainer") if isinstance(fingerprint, dict) else None
    return f"{GUESSED} of the trainer {trainer}" if trainer else GUESSED


def drawings(charts: Sequence[Chart], last_step: int) -> tuple[list[Drawing], str]:
    """And what to say when they cannot be drawn."""
    found = []
    for place, chart in enumerate(charts):
        try:
            svg = Markup(draw(chart, f"c{place}", last_step))  # of numbers alone; the names are in the legend
        except NoPlottingError as error:
            return [], str(error)
        lines = tuple(_line(number, name, curve) for number, name, curve in chart.numbered)
        found.append(Drawing(chart.part, chart.title, svg, lines))
    return found, ""


def _line(place: int, name: str, curve: Curve) -> Line:
    if not curve.finite:
        return Line(place, name, "never finite", "")
    values = [value for _, value in curve.finite]
    assert curve.last is not None
    return Line(place, name, number(curve.last), f"{min(values):.3g} to {max(values):.3g}")


def templates() -> Environment:
    return Environment(
        loader=PackageLoader("lora_trainer.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
