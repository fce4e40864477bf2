"""Make a list of degraded pictures and their originals from folders, after having looked at every picture.

python -m tools.make_pair_list data/train --output data/train.csv
python -m tools.make_pair_list data/train --types Blur Rain --names-as-prompts --output data/train.parquet
The folders are data/train/Blur/LQ and data/train/Blur/GT and so on, or data/train/LQ and data/train/GT.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_trainer.data.pair_list import ENDINGS, write_pair_list
from lora_trainer.data.restoration_pairs import RestorationSet, RestorationSources, survey_restoration
from lora_trainer.errors import Refusal


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use or a picture that is refused."""
    options = _parser().parse_args(arguments)
    try:
        found = _write(options)
    except Refusal as refusal:
        print("\n".join(refusal.problems), file=sys.stderr)
        return refusal.exit_status
    for note in found.notes:
        print(note)
    counts = {kind: found.kinds.count(kind) for kind in dict.fromkeys(found.kinds)}
    words = ", ".join(f"{kind} {count}" for kind, count in counts.items() if kind)
    print(f"{options.output}: {len(found.pairs)} pairs" + (f" ({words})" if words else ""))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make_pair_list", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="with <type>/LQ and <type>/GT in them, or LQ and GT")
    parser.add_argument("--output", required=True, type=Path, help=f"the list to write, {' or '.join(ENDINGS)}")
    parser.add_argument("--types", nargs="+", default=[], help="of degradation, by their folders; all without this")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--prompt", default="", help="the prompt of every pair")
    prompts.add_argument("--names-as-prompts", action="store_true", help="a_red_house.png has the prompt a red house")
    parser.add_argument("--overwrite", action="store_true", help="replace a list that is there already")
    return parser


def _write(options: argparse.Namespace) -> RestorationSet:
    output: Path = options.output
    if output.suffix.lower() not in ENDINGS:
        raise Refusal(f"{output}: the name of a list of pairs ends in {' or '.join(ENDINGS)}")
    if output.exists() and not options.overwrite:
        raise Refusal(f"{output}: exists already; remove it, give another name, or say --overwrite")
    if not output.parent.is_dir():
        raise Refusal(f"{output.parent}: there is no such folder to write the list to")
    found = survey_restoration(
        RestorationSources(
            folders=[str(folder) for folder in options.folders],
            kinds=options.types,
            prompt=options.prompt,
            name_is_prompt=options.names_as_prompts,
        )
    )
    write_pair_list(output, _rows(found, output.parent))
    return found


def _rows(found: RestorationSet, folder: Path) -> Iterator[tuple[str, str, str, str]]:
    for pair, prompt, kind in zip(found.pairs, found.prompts, found.kinds, strict=True):
        yield _place(pair.lq or "", folder), _place(pair.gt, folder), prompt, kind


def _place(file: str, folder: Path) -> str:
    """The way from the list's folder with `/`; the whole path where there is no way, as between drives of Windows."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:
        return Path(file).resolve().as_posix()


if __name__ == "__main__":
    sys.exit(main())
