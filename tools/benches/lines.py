"""What the benches are told and what they say: the same arguments, a line of JSON for each way, and a table."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from unittest import mock

import torch
from accelerate.state import AcceleratorState

from lora_trainer.engine.chosen_device import chosen_device
from lora_trainer.engine.precision import DTYPES, Precision, choose_precision
from lora_trainer.engine.processes import Processes
from lora_trainer.errors import Refusal, did_you_mean
from tools.benches.measuring import Course, Taken, in_turn, peak_flops

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]
UNKNOWN = "-"
DEVICE = "ACCELERATE_TORCH_DEVICE"  # which accelerate reads, and so the trainers do

COLUMNS: Sequence[Column] = (
    ("images/s", lambda row: _speed(row["images_per_second"])),
    ("s a step", lambda row: f"{row['seconds']:.4f}"),
    ("least", lambda row: f"{row['least']:.4f}"),
    ("most", lambda row: f"{row['most']:.4f}"),
    ("times", lambda row: f"{row['times']:.2f}"),
    ("of peak", lambda row: f"{row['share_of_peak']:.1%}"),
    ("host ms", lambda row: f"{row['host_ms']:.2f}"),
    ("MiB", lambda row: _mib(row["peak_gib"])),
    ("kept", lambda row: _mib(row["kept_gib"])),
)


@dataclass(frozen=True)
class Machine:
    """Where a bench runs, and in which number format."""

    processes: Processes
    precision: Precision

    @property
    def device(self) -> torch.device:
        return self.processes.device


class Parser(argparse.ArgumentParser):
    """Raises Refusal, one sentence, for what it does not understand."""

    def error(self, message: str) -> NoReturn:
        raise Refusal(f"{self.prog}: {message}")


def parser_of(
    name: str, doc: str | None, sizes: Collection[str], *, batch: int, rounds: int, precision: str = "no"
) -> Parser:
    """The arguments of every bench. `precision` is the default; the trainers that have no other are asked for none."""
    parser = Parser(prog=name, description=(doc or "").partition("\n")[0])
    first = next(iter(sizes))
    parser.add_argument(
        "--size", type=_chosen_of("size", sizes), default=[first],
        help=f"of {', '.join(sizes)}, several with commas (default {first})",
    )  # fmt: skip
    parser.add_argument("--batch", type=count_from_1, default=batch, help=f"pictures a step (default {batch})")
    parser.add_argument("--rounds", type=count_from_1, default=rounds, help=f"steps of each way (default {rounds})")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    parser.add_argument("--threads", type=count_from_1, default=1, help="on a CPU (default 1)")
    if precision != "no":
        parser.add_argument("--precision", default=precision, choices=tuple(DTYPES), help=f"(default {precision})")
    return parser


def add_names(parser: Parser, option: str, names: Collection[str], default: str, words: str) -> None:
    """An option of one or several names."""
    word = option.removeprefix("--")
    parser.add_argument(
        option, type=_chosen_of(word, names), default=default.split(","), help=f"{words} (default {default})"
    )


def add_ways(parser: Parser, names: Collection[str], baseline: str) -> None:
    """`--way`, which may be repeated, since names of ways have commas."""
    parser.add_argument(
        "--way", type=_one_of("way", names), action="append", default=[], metavar="NAME",
        help=f'measure "{baseline}" and this way alone, several by repeating it (default all): {"; ".join(names)}',
    )  # fmt: skip


def run_bench(bench: Callable[[argparse.Namespace], None], parser: Parser, words: Sequence[str] | None) -> int:
    """The exit status: 0, or 2 for a use that is refused."""
    try:
        bench(parser.parse_args(words))
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_status
    return 0


def machine_of(options: argparse.Namespace) -> Machine:
    """Raises Refusal for a device that is not there."""
    device = chosen_device(options.device, "--device")
    with mock.patch.dict(os.environ, {DEVICE: str(device)} if options.device else {}):
        AcceleratorState._reset_state()  # that of a script that ran before in this process, in another format
        processes = Processes()
    if processes.device.type == "cpu":
        torch.set_num_threads(options.threads)
    return Machine(processes, choose_precision(getattr(options, "precision", "no"), processes.device)[0])


def rows_of(
    facts: Mapping[str, Any], taken: Mapping[str, Taken], baseline: str, *, batch: int, flops: int, peak: float
) -> list[Row]:
    """A row for each way. `flops` are those of a step without what is computed twice, `peak` those of a second."""
    plain = statistics.median(taken[baseline].seconds)
    return [
        {
            **facts, "way": name, "batch": batch, "images_per_second": batch / median, "seconds": median,
            "least": min(found.seconds), "most": max(found.seconds), "times": plain / median, "tflop": flops / 1e12,
            "share_of_peak": flops / median / peak, "peak_tflops": peak / 1e12,
            "host_ms": statistics.median(found.host) * 1000, "peak_gib": found.peak_gib, "kept_gib": found.kept_gib,
        }
        for name, found in taken.items()
        for median in [statistics.median(found.seconds)]
    ]  # fmt: skip


def measured(
    facts: Mapping[str, Any],
    ways: Mapping[str, Callable[[], Course]],
    baseline: str,
    machine: Machine,
    rounds: int,
    *,
    batch: int,
    flops: Callable[[], int],
    tolerance: float,
    one_by_one: bool = False,
    only: Collection[str] = (),
) -> list[Row]:
    """A row for each way, or for the baseline and those of `only`, measured in turn. Raises ValueError where one does
    not compute what the first one does."""
    ways = {name: way for name, way in ways.items() if not only or name in (baseline, *only)}
    taken = in_turn(ways, rounds, machine.device, tolerance=tolerance, one_by_one=one_by_one)
    where = {"precision": machine.precision.name, "device": str(machine.device), "in_turn": not one_by_one}
    peak = peak_flops(machine.device, machine.precision.dtype)
    return rows_of({**facts, **where}, taken, baseline, batch=batch, flops=flops(), peak=peak)


def tell(rows: Sequence[Row], title: str, columns: Sequence[Column] = COLUMNS) -> None:
    """Rows of steps, with what they have in common."""
    first = rows[0]
    order = "" if first.get("in_turn", True) else ", each way by itself"
    step = f"{first['tflop']:.4f} TFLOP a step"
    tell_rows(
        rows, f"{title}{order}: {step}; a large matrix product attains {first['peak_tflops']:.3f} TFLOP/s", columns
    )


def tell_rows(rows: Sequence[Row], title: str, columns: Sequence[Column]) -> None:
    """A line of JSON for each row, a title, and the table, without what nobody knows."""
    for row in rows:
        print(json.dumps(row))
    print(title)
    width = max(len(row["way"]) for row in rows)
    known = [(name, form) for name, form in columns if {form(row) for row in rows} != {UNKNOWN}]
    cells = [[name for name, _ in known], *([form(row) for _, form in known] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for way, line in zip(["", *(row["way"] for row in rows)], cells, strict=True):
        print("  ".join([way.ljust(width), *(cell.rjust(size) for cell, size in zip(line, widths, strict=True))]))


def _speed(pictures: float) -> str:
    return f"{pictures:.2f}" if pictures >= 1 else f"{pictures:.4f}"


def _mib(gib: float | None) -> str:
    return UNKNOWN if gib is None else f"{gib * 1024:.0f}"


def count_from_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return int(text)


def _chosen_of(word: str, names: Collection[str]) -> Callable[[str], list[str]]:
    one = _one_of(word, names)
    return lambda text: [one(name) for name in text.split(",")]


def _one_of(word: str, names: Collection[str]) -> Callable[[str], str]:
    def chosen(name: str) -> str:
        if name not in names:
            known = ("; " if any("," in each for each in names) else ", ").join(names)
            raise argparse.ArgumentTypeError(f"there is no {word} {name!r}; write {known}{did_you_mean(name, names)}")
        return name

    return chosen
