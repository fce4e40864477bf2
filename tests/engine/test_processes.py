"""Two processes train what one does, and end together."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lora_trainer.engine.processes import Processes

SCRIPT = Path(__file__).parent / "shared_run.py"

Seen = list[dict[str, Any]]


@dataclass(frozen=True)
class Runs:
    alone: dict[str, Any]
    ranks: Seen
    folder: Path

    def losses(self, which: str, run: str) -> list[list[float]]:
        lines = (self.folder / which / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [[row["step"], row["loss"], row["grad_norm"], row.get("D/loss", 0.0)] for row in rows]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("processes ü")
    one, two = folder / "one", folder / "two"
    for out in (one, two):
        out.mkdir()
    runpy.run_path(str(SCRIPT))["main"](one)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT), str(two)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    alone = json.loads((one / "rank-0.json").read_text(encoding="utf-8"))
    return Runs(alone, [json.loads(path.read_text(encoding="utf-8")) for path in sorted(two.glob("rank-*"))], folder)


def test_losses_and_weights_are_those_of_one_process(runs: Runs) -> None:
    assert [seen["ended"] for seen in (runs.alone, *runs.ranks)] == ["finished"] * 3
    one, two = runs.losses("one", "whole"), runs.losses("two", "whole")
    assert [row[0] for row in two] == list(range(1, 10))
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-6, abs=1e-6)
    assert runs.ranks[0]["weights"] == pytest.approx(runs.alone["weights"], rel=1e-5, abs=1e-6)


def test_all_processes_hold_the_same_weights_to_the_bit(runs: Runs) -> None:
    assert len(runs.ranks) == 2
    assert runs.ranks[0]["weights"] == runs.ranks[1]["weights"]


def test_a_signal_to_one_process_stops_both_and_the_run_goes_on_to_the_same_bits(runs: Runs) -> None:
    for seen in (runs.alone, *runs.ranks):
        assert (seen["parted"]["ended"], seen["parted"]["step"]) == ("stopped 143", 6)
        assert seen["parted"]["again"] == "finished"
        assert seen["parted"]["weights"] == seen["weights"]
    assert runs.losses("two", "parted") == runs.losses("two", "whole")


def test_a_nan_in_one_process_ends_both_and_names_its_picture(runs: Runs) -> None:
    for seen in (runs.alone, *runs.ranks):
        assert seen["nan"].startswith("step 7: the loss is nan")
        assert "Pictures of the step: row 0 of 6." in seen["nan"]
    assert "the last good checkpoint is step 4" in runs.ranks[0]["nan"]


def test_a_file_that_cannot_be_written_ends_both(runs: Runs) -> None:
    for seen in (runs.alone, *runs.ranks):
        assert "cannot write full" in seen["full"]
        assert "Make room" in seen["full"]


def test_what_processes_tell_each_other(runs: Runs) -> None:
    for seen in runs.ranks:
        assert seen["told"]["any"] == [True, True]
        assert seen["told"]["none"] is False
        assert seen["told"]["gathered"] == ["from 0", "from 1", "from 1"]
        assert seen["told"]["main"] == {"rank": 0}
        assert seen["told"]["sum"] == 3.0


def test_buffers_are_not_sent_and_gradients_lie_where_they_are_exchanged(runs: Runs) -> None:
    assert runs.alone["wrapped"] == []
    assert [seen["wrapped"] for seen in runs.ranks] == [["own buffers", "True"]] * 2


def test_one_process_needs_no_wrapping() -> None:
    module = nn.Linear(2, 2)
    processes = Processes()
    assert processes.wrap(module) is module
    assert (processes.rank, processes.world, processes.is_main) == (0, 1, True)


def test_what_the_main_process_hears_all_do(runs: Runs) -> None:
    ending = runs.alone["commanded"]
    assert ending["ended"] == "stopped 0"
    assert ending["files"] == [
        "commanded-000002-state", "commanded-000002.json", "commanded-step00000002-state",
        "commanded-step00000002.json",
    ]  # fmt: skip
    assert [seen["commanded"] for seen in runs.ranks] == [ending, ending]
    assert [seen["told"]["each"] for seen in (runs.alone, *runs.ranks)] == [[False, True, True]] * 3
