"""Several runs on one page: how far each came, the same number of all in one chart, where their presets differ."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lora_trainer.engine.run_facts import Thumbnail
from lora_trainer.report.chart_groups import MAIN, MEASURED, MORE, TITLES, Chart, charts_of
from lora_trainer.report.curves import Curve
from lora_trainer.report.page import drawings, templates, title_of
from lora_trainer.report.run_files import RunFiles
from lora_trainer.report.verdict import STATES, Figure, figures_of

MOST_RUNS, MOST_CHARTS, LONGEST = 8, 28, 160
HERE_ALONE = ("output_dir", "output_name", "about", "$schema", "logging_dir", "wandb_run_name")
PART_OF_MANY = re.compile(r" \(\d+\)$")
NOT_TOLD = "not known"


@dataclass(frozen=True)
class Column:
    """A run: `label` tells it from the others, `samples` are its newest pictures."""

    label: str
    state: str
    state_word: str
    title: str
    figures: tuple[Figure, ...]
    samples: tuple[tuple[str, Thumbnail], ...]


def render_comparison(runs: Sequence[RunFiles]) -> str:
    labels = labels_of(runs)
    charts = shared_charts(runs, labels)
    last_step = max((curve.steps[-1] for run in runs for curve in run.curves.values()), default=0)
    drawn, remark = drawings(charts, last_step)
    columns = [_column(run, label) for run, label in zip(runs, labels, strict=True)]
    page = templates().get_template("compare.html")
    return page.render(columns=columns, charts=drawn, measured=MEASURED, remark=remark, differences=differences(runs))


def labels_of(runs: Sequence[RunFiles]) -> list[str]:
    """The names, with the folder's where a name stands twice, and a number where that does too."""
    names = [run.name for run in runs]
    folders = [f"{run.name} ({run.folder.path.resolve().name})" for run in runs]
    labels = [folder if names.count(name) > 1 else name for name, folder in zip(names, folders, strict=True)]
    return [
        f"{label} {labels[: place + 1].count(label)}" if labels.count(label) > 1 else label
        for place, label in enumerate(labels)
    ]


def shared_charts(runs: Sequence[RunFiles], labels: Sequence[str]) -> list[Chart]:
    """For each number a chart with a line of each run that has it, in the colour of the run."""
    of_number: dict[tuple[str, str], dict[str, Curve]] = {}
    for run, label in zip(runs, labels, strict=True):
        for chart in charts_of(run.curves, run.facts.higher_is_better if run.facts else {}):
            for name, curve in chart.lines.items() if chart.part != MORE else ():
                of_number.setdefault((chart.part, _title(chart.title, name)), {})[label] = curve
    ordered = sorted(of_number.items(), key=lambda item: (item[0][0] not in (MEASURED, MAIN), -len(item[1])))
    return [
        Chart(part, title, lines, colours=tuple(labels.index(label) for label in lines))
        for (part, title), lines in ordered[:MOST_CHARTS]
    ]


def _title(chart: str, name: str) -> str:
    """Of a chart that has this line alone."""
    title = PART_OF_MANY.sub("", chart)
    plain = name in ("all", *TITLES) or name.casefold() == title.casefold()
    return title if plain else f"{title}: {name}"


def differences(runs: Sequence[RunFiles]) -> list[tuple[str, list[str]]]:
    """The keys whose values are not the same in all runs, with the value of each."""
    told = [dict(run.facts.values) if run.facts else None for run in runs]
    names = dict.fromkeys(name for values in told if values for name in values if name not in HERE_ALONE)
    rows = [(name, [_value(values, name) for values in told]) for name in names]
    return [(name, values) for name, values in rows if len({value for value in values if value != NOT_TOLD}) > 1]


def _value(values: dict[str, object] | None, name: str) -> str:
    if values is None:
        return NOT_TOLD
    value = values.get(name, "")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def _column(run: RunFiles, label: str) -> Column:
    state = str(run.status.get("state"))
    figures = figures_of(run.status, run.curves, run.facts.higher_is_better if run.facts else {})
    newest = [(each, [picture for picture in each.pictures if picture]) for each in run.gallery.subjects]
    samples = tuple((each.caption or each.name, pictures[-1]) for each, pictures in newest if pictures)
    return Column(label, state, STATES.get(state, state), title_of(run), tuple(figures), samples)
