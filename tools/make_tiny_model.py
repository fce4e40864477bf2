"""Write a tiny random base model of two megabytes, for tests, examples and dry runs without a download.

python -m tools.make_tiny_model --kind sdxl my_models/tiny_sdxl
python -m tools.make_tiny_model --kind sd15 --single-file my_models/tiny_sd15.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_trainer.atomic import remove_folder
from lora_trainer.errors import Refusal
from lora_trainer.models.base_file import CKPT, SAFETENSORS
from lora_trainer.models.detect import detect
from lora_trainer.models.tiny_models import TINY_KINDS, make_tiny_model


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use that is refused."""
    options = _parser().parse_args(arguments)
    out: Path = options.out
    try:
        _check_name(out, options.single_file)
        _make_room(out, options.single_file, options.force)
        make_tiny_model(options.kind, out, options.single_file, options.seed)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_status
    files = [out] if options.single_file else [file for file in out.rglob("*") if file.is_file()]
    size_mb = sum(file.stat().st_size for file in files) / 1e6
    layout = "one file" if options.single_file else "a diffusers folder"
    print(f"{out}: a tiny {options.kind} base model with seed {options.seed}, {layout}, {size_mb:.1f} MB")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make_tiny_model", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kind", required=True, choices=TINY_KINDS, help="which base model to imitate")
    parser.add_argument("--single-file", action="store_true", help=f"one {SAFETENSORS} or {CKPT} file, not a folder")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other weights (default 0)")
    parser.add_argument("--force", action="store_true", help="replace OUT when it is a base model already")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder or file to write")
    return parser


def _check_name(out: Path, single_file: bool) -> None:
    is_file_name = out.suffix in (SAFETENSORS, CKPT)
    if single_file and not is_file_name:
        raise Refusal(f"{out}: a single file must end in {SAFETENSORS} or {CKPT}; change its name")
    if is_file_name and not single_file:
        raise Refusal(f"{out}: this is the name of a file; add --single-file, or give a folder's name")


def _make_room(out: Path, single_file: bool, force: bool) -> None:
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        return
    if not force:
        raise Refusal(f"{out} is there already; give another name, or --force to replace it")
    if out.is_dir() == single_file:
        raise Refusal(f"{out} is a {'folder' if single_file else 'file'}, which --force does not replace; delete it")
    detect(out)  # refuses what is no base model
    if not single_file:
        remove_folder(out)


if __name__ == "__main__":
    sys.exit(main())
