"""What the tools for LoRA files have in common: options, the check of the output, and how a refusal is shown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.errors import Refusal

if TYPE_CHECKING:
    import torch

    from lora_trainer.models.adapter_merge import LayerReport
    from lora_trainer.models.low_rank import RankRule

PRECISIONS = ("float", "fp16", "bf16")
NO_LIMIT = 1 << 30
WORTH_TELLING = 5e-5  # of a layer's change; less is rounding
METHODS = ("sv_ratio", "sv_fro", "sv_cumulative")


def run(
    tool: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, words: Sequence[str] | None
) -> int:
    """The exit status: 0, or 2 for a use that is refused."""
    options = parser.parse_args(words)
    try:
        tool(options)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_status
    return 0


def parser_of(name: str, doc: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=name, description=(doc or "").partition("\n")[0])


def add_output(parser: argparse.ArgumentParser, words: str) -> None:
    parser.add_argument("--output", required=True, type=Path, help=words)
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there already")


def add_precision(parser: argparse.ArgumentParser, default: str, same: str) -> None:
    parser.add_argument(
        "--precision", choices=("same", *PRECISIONS), default=default, help=f"of the output; same: {same} ({default})"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1; by default cuda where there is one")


def add_methods(parser: argparse.ArgumentParser) -> None:
    """How many ranks a layer gets, by its singular values."""
    methods = parser.add_mutually_exclusive_group()
    methods.add_argument(
        "--sv-ratio", type=positive, metavar="N", help="keep the singular values above the largest divided by N"
    )
    methods.add_argument("--sv-fro", type=share, metavar="0..1", help="keep this share of the Frobenius norm")
    methods.add_argument("--sv-cumulative", type=share, metavar="0..1", help="keep this share of their sum")


def positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def share(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return number


def rank(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def rank_rule(options: argparse.Namespace, most: int | None) -> RankRule:
    """The rule of `add_methods`, with at most so many ranks."""
    from lora_trainer.models.low_rank import RankRule

    method = next((name for name in METHODS if getattr(options, name) is not None), "")
    return RankRule(NO_LIMIT if most is None else most, method, getattr(options, method) if method else 0.0)


def check_output(output: Path, inputs: Iterable[Path], overwrite: bool, folder: bool = False) -> None:
    """Raises Refusal for an output that is one of the inputs, is there already, or has the wrong suffix."""
    problems = []
    inside = [path for path in inputs if output.resolve() in (path.resolve(), *path.resolve().parents)]
    if not folder and output.suffix != ".safetensors":
        problems.append(f"--output {output}: the file must end in .safetensors; correct the name")
    if inside:
        problems.append(f"--output {output} is what is read ({inside[0]}); give another name")
    elif folder and output.exists():
        problems.append(f"--output {output} is there already; give the name of a new folder")
    elif output.exists() and not overwrite:
        problems.append(f"--output {output} is there already; give another name, or --overwrite")
    if problems:
        raise Refusal(*problems)


def device_of(word: str) -> torch.device:
    """Raises Refusal for a device that is not there."""
    from lora_trainer.engine.chosen_device import chosen_device

    return chosen_device(word, "--device")


def print_layers(reports: Sequence[LayerReport]) -> None:
    """A line for each layer: ranks, the largest singular value through the smallest, and what is lost."""
    width = max((len(report.name) for report in reports), default=0)
    for report in reports:
        ranks = f"{report.rank}" if report.rank_before is None else f"{report.rank_before} -> {report.rank}"
        ratio = f"{report.largest / report.smallest:.1f}" if report.smallest > 0 else "-"
        print(f"{report.name:<{width}}  rank {ranks:<12}  max/min {ratio:<8}  lost {report.lost:.2%}")


def print_losses(reports: Sequence[LayerReport]) -> None:
    """In one line what is lost of the layers' changes (shares of their lengths)."""
    if not any(report.lost >= WORTH_TELLING for report in reports):
        return
    worst = max(reports, key=lambda report: report.lost)
    mean = sum(report.lost for report in reports) / len(reports)
    print(f"lost of the layers' changes: {mean:.2%} on average, at most {worst.lost:.2%} ({worst.name})")


def size_of(path: Path) -> str:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"
