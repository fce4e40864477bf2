"""What all benches say and refuse."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from lora_trainer.errors import Refusal
from tools import bench_finetune, bench_gan, bench_lora, bench_restoration, bench_super_resolution
from tools.benches.lines import add_ways, parser_of, rows_of, run_bench, tell
from tools.benches.measuring import Taken

ROOT = Path(__file__).resolve().parents[3]
COMMAND = re.compile(r"^(?:\t\$\(BIN\)/)?python -m tools\.(bench_\w+)(.*)$", re.MULTILINE)
BENCHES = (bench_finetune, bench_gan, bench_lora, bench_restoration, bench_super_resolution)
TAKEN = {"script": Taken([0.5, 0.6, 0.4], [0.1, 0.1, 0.2], 0.5), "ours": Taken([0.25, 0.25, 0.5], [0.01] * 3, 0.25)}


def test_a_row_for_each_way() -> None:
    script, ours = rows_of({"bench": "x"}, TAKEN, "script", batch=4, flops=10**9, peak=1e10)
    assert (script["bench"], script["way"], script["images_per_second"], script["times"]) == ("x", "script", 8.0, 1.0)
    assert (ours["seconds"], ours["least"], ours["most"], ours["times"]) == (0.25, 0.25, 0.5, 2.0)
    assert (ours["share_of_peak"], ours["tflop"], ours["peak_tflops"]) == (0.4, 1e-3, 1e-2)
    assert (ours["host_ms"], ours["peak_gib"], ours["kept_gib"]) == (10.0, 0.25, None)


def test_lines_and_a_table_without_what_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of({}, TAKEN, "script", batch=4, flops=10**9, peak=1e10)
    tell(rows, "tiny")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines[:2]] == rows
    assert lines[2] == "tiny: 0.0010 TFLOP a step; a large matrix product attains 0.010 TFLOP/s"
    assert lines[3].split() == [
        "images/s",
        "s",
        "a",
        "step",
        "least",
        "most",
        "times",
        "of",
        "peak",
        "host",
        "ms",
        "MiB",
    ]
    assert lines[5].split() == ["ours", "16.00", "0.2500", "0.2500", "0.5000", "2.00", "40.0%", "10.00", "256"]
    assert len({len(line) for line in lines[3:]}) == 1


@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.__name__)
@pytest.mark.parametrize(
    "words, said",
    [
        ("--size tinny", "argument --size: there is no size 'tinny'; write tiny, mid, full; did you mean tiny?"),
        ("--rounds 0", "argument --rounds: 0 is no number from 1 on"),
        ("--batch few", "argument --batch: few is no number from 1 on"),
        ("--device gpu", "--device gpu cannot be used ("),
        ("--speed", "unrecognized arguments: --speed"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_sentence(
    bench: object, words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(words.split()) == 2  # type: ignore[attr-defined]
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert said in error


def test_documented_commands_are_taken() -> None:
    known = {bench.__name__.rpartition(".")[2]: bench for bench in BENCHES}
    for place in ("docs/benchmarks.md", "Makefile"):
        text = (ROOT / place).read_text(encoding="utf-8").replace("\\\n", " ")
        found = [(known[name], words) for name, words in COMMAND.findall(text) if name in known]
        assert {bench for bench, _ in found} == set(BENCHES)
        for bench, words in found:
            bench._parser().parse_args(shlex.split(words))


def test_several_sizes_and_the_precisions_of_those_that_have_one() -> None:
    found = []
    parser = parser_of("bench_x", "Measure.", {"a": 1, "b": 2}, batch=3, rounds=5, precision="bf16")
    assert run_bench(found.append, parser, ["--size", "a,b", "--precision", "no"]) == 0
    (options,) = found
    assert (options.size, options.batch, options.rounds, options.precision) == (["a", "b"], 3, 5, "no")
    assert not hasattr(parser_of("bench_y", "", {"a": 1}, batch=3, rounds=5).parse_args([]), "precision")


def test_ways_are_named_one_by_one() -> None:
    found = []
    parser = parser_of("bench_x", "Measure.", {"a": 1}, batch=3, rounds=5)
    add_ways(parser, ("plain", "ours, quick", "ours"), "plain")
    assert run_bench(found.append, parser, ["--way", "ours, quick", "--way", "ours"]) == 0
    assert run_bench(found.append, parser, []) == 0
    assert [options.way for options in found] == [["ours, quick", "ours"], []]
    with pytest.raises(Refusal, match="there is no way 'our'; write plain; ours, quick; ours; did you mean ours"):
        parser.parse_args(["--way", "our"])
