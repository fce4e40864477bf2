"""Several runs on one page: one colour for each, the numbers that they share, the keys that differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.engine.run_facts import Material, RunFacts
from lora_trainer.report.compare import differences, labels_of, shared_charts
from lora_trainer.report.run_files import RunFiles, read_run
from tests.report.test_write import EVIL, Page
from tools.compare_runs import main


def run(folder: Path, name: str, values: dict[str, Any] | None = None, **columns: list[float]) -> RunFiles:
    folder.mkdir(parents=True)
    status = {"output_name": name, "state": "finished", "step": 2, "total_steps": 2}
    (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    rows = [{"step": n + 1, **{key: column[n] for key, column in columns.items()}} for n in range(2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if values is not None:
        RunFacts(name, "lora", Material(f"{name} {EVIL}"), values=values).write(folder / "facts.json")
    return read_run(folder)


def test_runs_are_told_apart(tmp_path: Path) -> None:
    places = (("a", "cat"), ("b", "cat"), ("c", "dog"), ("d/b", "cat"))
    assert labels_of([run(tmp_path / place, name) for place, name in places]) == [
        "cat (a)", "cat (b) 1", "dog", "cat (b) 2",
    ]  # fmt: skip


def test_a_number_has_a_chart_and_a_run_its_colour(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "a", "a", loss=[2.0, 1.0], memory_gib=[1.0, 1.0]),
        run(tmp_path / "b", "b", loss=[3.0, 1.0], **{"lr/unet": [0.1, 0.1], "val/PSNR": [9.0, 9.5]}),
    ]
    found = [(chart.title, list(chart.lines), chart.colours) for chart in shared_charts(runs, ["a", "b"])]
    assert found == [
        ("Loss", ["a", "b"], (0, 1)),
        ("PSNR", ["b"], (1,)),
        ("Memory (GiB)", ["a"], (0,)),
        ("Learning rate: unet", ["b"], (1,)),
    ]


def test_only_keys_that_differ_are_listed(tmp_path: Path) -> None:
    alike = {"seed": 1, "output_dir": "x"}
    runs = [
        run(tmp_path / "a", "a", {**alike, "lr": 0.1, "sizes": [1, 2]}),
        run(tmp_path / "b", "b", {**alike, "output_dir": "y", "lr": 0.2}),
        run(tmp_path / "c", "c"),
    ]
    assert differences(runs) == [("lr", ["0.1", "0.2", "not known"]), ("sizes", ["[1, 2]", "", "not known"])]


def test_the_page_is_whole_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, EVIL, {"about lr": name}, loss=[2.0, 1.0])
    page = tmp_path / "compare.html"
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(page)]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    found = Page(page.read_text(encoding="utf-8"))
    assert (found.open, found.scripts) == ([], 0)
    assert len(found.ids) == len(set(found.ids))
    assert {address[:1] for address in found.addresses} <= {"#"}
    assert "2 runs side by side" in found.text
    assert "about lr" in found.text


def test_a_single_folder_and_one_without_a_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "a", "a")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "a")])
    assert "give the folders of 2 to 8 runs; these are 1" in capsys.readouterr().err
    assert main([str(tmp_path / "a"), str(tmp_path)]) == 2
    assert "no run is in this folder" in capsys.readouterr().err
