"""Make the report of a run anew, from what lies in its folder.

python -m tools.report output/my_run
python -m tools.report output/my_run --output my_run.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_trainer.errors import Refusal
from lora_trainer.report.write import write_report


def main(words: Sequence[str] | None = None) -> int:
    options = parser().parse_args(words)
    try:
        for folder in options.folders:
            print(write_report(folder, options.output))
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_status
    return 0


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="tools.report", description="Write report.html, a page that opens without a network, into a run's folder."
    )
    found.add_argument("folders", metavar="RUN_FOLDER", nargs="+", type=Path, help="what was output_dir")
    found.add_argument("--output", type=Path, help="another file, for a single run")
    return found


if __name__ == "__main__":
    sys.exit(main())
