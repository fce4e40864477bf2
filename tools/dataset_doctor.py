"""Look at all pictures and captions of a data set before a training, and write a page about them.

python -m tools.dataset_doctor --preset presets/mine.json
python -m tools.dataset_doctor --preset presets/mine.json --set max_resolution=768,768 --output mine.html
python -m tools.dataset_doctor photos --resolution 1024 --batch-size 4
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_trainer.config.reader import load_stages
from lora_trainer.data.doctor.dataset import Dataset
from lora_trainer.engine.console import set_up_logging
from lora_trainer.errors import Refusal
from lora_trainer.trainers.doctor import PAGE, dataset_of, diagnose, quiet_data
from lora_trainer.trainers.folder_doctor import FolderOptions, folder_dataset

TOLD = 20  # refusals on the terminal; the page has more


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for data that a training refuses."""
    options = _parser().parse_args(words)
    if (options.folder is None) == (options.preset is None):
        _parser().error("give either a folder of pictures or --preset FILE")
    if options.output.suffix.lower() not in (".html", ".htm"):
        _parser().error(f"--output {options.output}: the page must end in .html; correct the name")
    set_up_logging(True)
    try:
        diagnosis = diagnose(_dataset(options))
        diagnosis.write(options.output)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_status
    except OSError as error:
        print(f"{options.output}: cannot be written ({error})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing is written", file=sys.stderr)
        return 130
    print("\n".join(diagnosis.lines))
    print(options.output)
    refused = diagnosis.refused
    if refused:
        more = [f"... and {len(refused) - TOLD} more"] if len(refused) > TOLD else []
        print("\n".join([*refused[:TOLD], *more]), file=sys.stderr)
    return Refusal.exit_status if refused else 0


def _dataset(options: argparse.Namespace) -> Dataset:
    """Raises Refusal."""
    if options.folder is not None:
        said = FolderOptions(
            options.resolution, options.enlarge, options.batch_size, options.caption_extension, options.max_token_length
        )
        with quiet_data():
            return folder_dataset(options.folder, said)
    loaded = load_stages(options.preset, [word for words in options.set for word in words])[0]
    found = dataset_of(loaded)
    if found is None:
        raise Refusal(
            f"{options.preset}: the trainer {loaded.preset.trainer} does not list its pictures; give a folder"
        )
    return found


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="tools.dataset_doctor", description=(__doc__ or "").partition("\n")[0])
    found.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, help="pictures, in numbered folders or any")
    found.add_argument("--preset", metavar="FILE", type=Path, help="the preset whose data is looked at")
    found.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="append", default=[], help="override keys")
    found.add_argument("--output", type=Path, default=Path(PAGE), help=f"the page ({PAGE})")
    of_folder = found.add_argument_group("for a folder, what a preset would say")
    of_folder.add_argument("--resolution", type=_size, default=(1024, 1024), help="1024, or width x height (1024)")
    of_folder.add_argument("--enlarge", action="store_true", help="bring small pictures to the resolution too")
    of_folder.add_argument("--batch-size", type=_count, default=1, help="pictures of a step (1)")
    of_folder.add_argument("--caption-extension", default=".txt", help="of the caption beside a picture (.txt)")
    of_folder.add_argument("--max-token-length", type=int, choices=(75, 150, 225), default=75, help="that is read (75)")
    return found


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    """(height, width)"""
    found = re.fullmatch(r"(\d{2,5})(?:[xX,](\d{2,5}))?", text)
    sides = [int(side) for side in found.groups(default=found[1])] if found else []
    if not sides or min(sides) < 64:
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 1024 or 1152x896, of at least 64")
    return sides[1], sides[0]


if __name__ == "__main__":
    sys.exit(main())
