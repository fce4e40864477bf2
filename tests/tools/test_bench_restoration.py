"""The bench of restoration: script and trainer compute the same, and both are measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import bench_restoration
from tools.bench_restoration import SIZES, WAYS, Setting, Size, main, open_way
from tools.benches.lines import machine_of, parser_of

pytestmark = pytest.mark.usefixtures("no_console")

FEW = ("script", "trainer, checkpointing")
SMALL = Size(None, 64, 4)


def test_script_and_trainer_begin_with_the_same_losses_and_gradients(tmp_path: Path) -> None:
    machine = machine_of(parser_of("bench", "", SIZES, batch=2, rounds=1).parse_args([]))
    setting = Setting(SMALL, 2, machine, tmp_path)
    script, trainer = (open_way(setting, WAYS[name]).first for name in ("script", "trainer"))
    for key in ("loss", "grad_norm"):
        assert script[key] == pytest.approx(trainer[key], rel=1e-4)
    for key in ("d/loss", "d/grad_norm"):  # the script brings the spectral norms up twice
        assert script[key] == pytest.approx(trainer[key], rel=1e-2)
    assert script["loss"] == pytest.approx(script["mse"] + script["lpips"] + script["disc"])


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(SIZES, "tiny", SMALL)  # type: ignore[arg-type]
    monkeypatch.setattr(bench_restoration, "WAYS", {name: WAYS[name] for name in FEW})
    monkeypatch.setattr("tools.benches.measuring.give_back", lambda: None)  # which takes a second
    assert main(["--batch", "1", "--rounds", "1", "--precision", "no", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in lines[: len(FEW)]]
    assert [row["way"] for row in rows] == list(FEW)
    assert all(row["seconds"] > 0 and 0 < row["share_of_peak"] < 1 and row["in_turn"] for row in rows)
    assert lines[len(FEW)].startswith("restoration, tiny (64 px, rank 4), batch 1, no, cpu: ")
    assert lines[-1].startswith("trainer, checkpointing  ")


def test_a_large_model_is_measured_one_way_after_the_other() -> None:
    assert set(bench_restoration.ONE_BY_ONE) == {"full"}
    assert SIZES["full"].side_px == 512
