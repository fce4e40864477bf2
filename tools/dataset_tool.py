"""Make a data set for a GAN of a folder, a zip, an LMDB, or the archives of CIFAR and MNIST.

python -m tools.dataset_tool --source photos --dest photos-256.zip --resolution 256 --transform center-crop
python -m tools.dataset_tool --source car_lmdb --dest cars.zip --resolution 512x384 --transform center-crop-wide
python -m tools.dataset_tool --source cifar-10-python.tar.gz --dest cifar10.zip
python -m tools.dataset_tool --source train-images-idx3-ubyte.gz --dest mnist.zip --channels rgb
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_trainer.data.dataset_making import MadeDataset, Making, make_dataset
from lora_trainer.data.dataset_writer import refuse_taken
from lora_trainer.data.image_misfits import is_power_of_two, power_of_two_below, spoken_size
from lora_trainer.data.picture_fitting import DECODERS, FILTERS, TRANSFORMS, WIDE, Fitting
from lora_trainer.data.picture_source import LABEL_MODES, Source, SourceSettings, open_source
from lora_trainer.engine.console import counted
from lora_trainer.errors import Refusal

LARGEST_PX = 16384
NAMED_AT_MOST = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use or pictures that are refused."""
    options = _parser().parse_args(arguments)
    try:
        _make(options)
    except Refusal as refusal:
        print("\n".join(refusal.problems), file=sys.stderr)
        return refusal.exit_status
    except OSError as error:
        print(f"{options.dest}: cannot be written ({error})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing is written", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dataset_tool", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", required=True, type=Path, help="what to take the pictures from")
    parser.add_argument("--dest", required=True, type=Path, help="the .zip or the folder to write")
    parser.add_argument("--max-images", type=_count, default=0, help="take so many at most, the first ones")
    parser.add_argument("--resolution", type=_size, help="256, or width x height such as 512x384")
    parser.add_argument(
        "--transform", choices=TRANSFORMS, default="none", help="for pictures that are not square (none)"
    )
    parser.add_argument("--resize-filter", choices=FILTERS, default="lanczos", help="how to resize (lanczos)")
    parser.add_argument("--alpha", choices=DECODERS, default="refuse", help="for transparent pictures (refuse)")
    parser.add_argument("--channels", choices=("keep", "rgb", "gray"), default="keep", help="in colour or grey (keep)")
    parser.add_argument("--labels", choices=LABEL_MODES, default="auto", help="where the classes come from (auto)")
    parser.add_argument("--skip-broken", action="store_true", help="leave out pictures that cannot be read")
    parser.add_argument("--compress", type=int, choices=range(10), default=1, help="how much, 0 is not at all (1)")
    parser.add_argument("--threads", type=_count, default=os.cpu_count() or 1, help="pictures at a time (one a core)")
    return parser


def _make(options: argparse.Namespace) -> None:
    fitting = _fitting(options)
    refuse_taken(options.dest, options.source)
    making = Making(fitting, options.compress, options.threads, options.skip_broken)
    with counted("reading headers", 0) as progress:
        source = open_source(SourceSettings(options.source, options.labels, options.max_images, progress))
    with counted("writing", len(source.pictures)) as progress:
        made = make_dataset(source, options.dest, making, progress)
    _tell(options.dest, source, made)


def _fitting(options: argparse.Namespace) -> Fitting:
    """Raises Refusal for options that contradict each other."""
    size, transform = options.resolution, options.transform
    if transform != "none" and size is None:
        raise Refusal(f"--transform {transform} needs to know the size; add --resolution 256")
    if size is not None and size[0] != size[1] and transform not in WIDE:
        raise Refusal(
            f"--resolution {size[1]}x{size[0]} is not square; give --resolution {min(size)}, or add --transform "
            "center-crop-wide, which lays such pictures on a black square"
        )
    return Fitting(transform, size, options.resize_filter, options.alpha, options.channels)


def _tell(target: Path, source: Source, made: MadeDataset) -> None:
    """What was made, and what is to be known about it."""
    kind = "grey" if made.header.channels == 1 else "in colour"
    labels = f", {made.labels} different labels" if made.labels else ""
    print(f"{target}: {made.count} pictures of {spoken_size(made.header.size_px)} pixels, {kind}{labels}")
    for number, name in enumerate(source.classes[:NAMED_AT_MOST]):
        print(f"class {number}: {name}")
    if made.enlarged:
        print(f"{made.enlarged} of them were smaller and have been enlarged")
    if made.left_out:
        print("\n".join(made.broken), f"{made.left_out} pictures that cannot be read were left out", sep="\n")
    side = made.header.size_px[0]
    if not is_power_of_two(side):
        print(f"the networks of the gan trainer do not take {side} pixels, but for example {power_of_two_below(side)}")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    """(height, width)"""
    found = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", text)
    sides = [int(side) for side in found.groups(default=found[1])] if found else []
    if not sides or not all(1 <= side <= LARGEST_PX for side in sides):
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 256 or 512x384, of at most {LARGEST_PX}")
    return sides[1], sides[0]


if __name__ == "__main__":
    sys.exit(main())
