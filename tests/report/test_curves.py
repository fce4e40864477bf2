"""Rows of metrics.jsonl become curves; long ones keep their spikes."""

from __future__ import annotations

import json
import math
from pathlib import Path

from lora_trainer.report.curves import Curve, curves_of, read_rows, smoothed, thinned


def curve(*values: float) -> Curve:
    return Curve("loss", tuple(range(1, len(values) + 1)), values)


def test_half_lines_and_lines_of_other_things_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 2}\n[1]\n{"loss": 3}\n{"step": 2, "loss": NaN}\n{"step": 3, "lo', "utf-8")
    rows = read_rows(file)
    assert [row["step"] for row in rows] == [1, 2]
    assert math.isnan(rows[1]["loss"])
    assert read_rows(tmp_path / "none.jsonl") == []


def test_the_numbers_of_a_step_that_was_made_twice_are_the_later_ones() -> None:
    rows = [{"step": 2, "loss": 5.0}, {"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0, "epoch": 1, "ok": True}]
    found = curves_of(rows)
    assert found == {"loss": Curve("loss", (1, 2), (4.0, 3.0))}


def test_nan_is_no_best_and_no_last_value() -> None:
    found = curve(3.0, math.nan, 1.0, 1.0, math.inf)
    assert (found.bad, found.last, found.best(higher=False), found.best(higher=True)) == (2, 1.0, (3, 1.0), (1, 3.0))
    assert curve(math.nan).best(higher=True) is None
    assert curve(math.nan).last is None


def test_the_ends_are_the_middle_of_the_first_and_the_last_tenth() -> None:
    falling = curve(*(100.0 - n for n in range(100)))
    assert falling.ends() == (95.5, 5.5)
    assert curve(2.0, 1.0).ends() == (2.0, 1.0)
    assert curve(2.0).ends() is None


def test_a_long_curve_is_thinned_and_keeps_spikes_gaps_and_ends() -> None:
    values = [math.sin(n / 50) for n in range(3000)]
    values[1234], values[2000] = 9.0, math.nan
    found = thinned(curve(*values), most=100)
    assert len(found.steps) <= 103
    assert found.steps[0] == 1
    assert found.steps[-1] == 3000
    assert 1235 in found.steps
    assert found.bad == 1
    assert json.dumps(found.steps) == json.dumps(sorted(set(found.steps)))
    assert thinned(curve(1.0, 2.0)) == curve(1.0, 2.0)


def test_smoothing_takes_the_mean_of_the_neighbours_and_shifts_nothing() -> None:
    assert smoothed(curve(0.0, 3.0, 6.0, 3.0, 0.0), 3).values == (1.5, 3.0, 4.0, 3.0, 1.5)
    assert smoothed(curve(1.0, math.nan, 3.0), 3).steps == (1, 3)
