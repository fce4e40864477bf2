"""The bench of upscalers: the plain loop and the trainer compute the same, and both are measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import bench_super_resolution
from tools.bench_super_resolution import SIZES, Setting, main, open_plain, open_way
from tools.benches.lines import machine_of, parser_of

pytestmark = pytest.mark.usefixtures("no_console")


@pytest.mark.parametrize("network", ["span_s", "superultracompact"])
def test_both_begin_with_the_same_loss_and_gradient(network: str, tmp_path: Path) -> None:
    machine = machine_of(parser_of("bench", "", SIZES, batch=2, rounds=1).parse_args([]))
    setting = Setting(network, 16, 2, machine, tmp_path)
    plain, ours = open_plain(setting).first, open_way(setting).first
    assert plain.keys() == {"loss", "grad_norm"}
    for key, value in plain.items():
        assert ours[key] == pytest.approx(value, rel=1e-4)


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(bench_super_resolution.SIZES, "tiny", 16)  # type: ignore[arg-type]
    assert main(["--batch", "1", "--rounds", "3", "--network", "superultracompact", "--device", "cpu"]) == 0
    plain, ours, told, head, *_ = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in (plain, ours)]
    assert [row["way"] for row in rows] == ["a plain loop", "the trainer"]
    assert all(row["least"] <= row["seconds"] <= row["most"] and row["network"] == "superultracompact" for row in rows)
    assert told.startswith("superultracompact 2x, tiny (16 px), batch 1, cpu: ")
    assert head.split()[0] == "images/s"
