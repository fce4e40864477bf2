"""The bench of fine-tuning: all ways begin with the same loss and gradient, and each is measured."""

from __future__ import annotations

import json

import pytest

from tests.tools.test_bench_lora import SMALL
from tools import bench_finetune
from tools.bench_finetune import WAYS, main, ways_in
from tools.benches.lines import machine_of, parser_of
from tools.benches.random_sdxl import SIZES

pytestmark = pytest.mark.usefixtures("no_console")

FEW = ("script", "trainer, EMA", "trainer, fused backward pass")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", (SMALL, 64))  # type: ignore[arg-type]
    monkeypatch.setattr("tools.benches.measuring.give_back", lambda: None)  # which takes a second


def test_the_command_measures_ways_that_begin_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_finetune, "WAYS", {**{name: WAYS[name] for name in FEW}, "script": WAYS["script, EMA"]})
    monkeypatch.setattr(bench_finetune, "TOLERANCE", {"no": 1e-4})
    assert main(["--batch", "2", "--rounds", "2", "--precision", "no", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in lines[: len(FEW)]]
    assert tuple(row["way"] for row in rows) == FEW
    assert {(row["bench"], row["size"], row["batch"], row["in_turn"]) for row in rows} == {
        ("finetune", "tiny", 2, True)
    }
    assert all(row["least"] <= row["seconds"] <= row["most"] and row["host_ms"] > 0 for row in rows)
    assert rows[0]["times"] == 1
    assert lines[len(FEW)].startswith("fine-tuning, tiny, batch 2, no, cpu: 0.0007 TFLOP a step")
    assert lines[-1].startswith("trainer, fused backward pass  ")


@pytest.mark.slow
def test_a_way_that_trains_something_else_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {"script": WAYS["script"], "offset": bench_finetune.Way({"loss_type": "huber"})}
    monkeypatch.setattr(bench_finetune, "WAYS", ways)
    with pytest.raises(ValueError, match=r"^offset: (loss|grad_norm) is .* on the same batch$"):
        main(["--batch", "2", "--rounds", "1", "--precision", "no"])


def test_levers_that_a_number_format_bars_are_left_out() -> None:
    assert ways_in("bf16") == WAYS
    assert WAYS.keys() - ways_in("no").keys() == {"trainer, full_bf16", "trainer, fused and full_bf16"}
    assert WAYS.keys() - ways_in("fp16").keys() == {
        "trainer, full_bf16", "trainer, fused and full_bf16", "trainer, fused backward pass",
    }  # fmt: skip


@pytest.mark.slow
def test_every_way_in_bf16(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--batch", "2", "--rounds", "1"]) == 0
    machine_of(parser_of("bench", "", SIZES, batch=2, rounds=1).parse_args([]))  # leaves no format of a script behind
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["way"] for line in lines[: len(WAYS)]] == list(WAYS)
