"""Put several runs side by side on one page that opens without a network.

python -m tools.compare_runs output/first output/second --output compare.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_trainer.errors import Refusal
from lora_trainer.report.compare import MOST_RUNS
from lora_trainer.report.write import write_comparison


def main(words: Sequence[str] | None = None) -> int:
    options = parser().parse_args(words)
    if not 2 <= len(options.folders) <= MOST_RUNS:
        parser().error(f"give the folders of 2 to {MOST_RUNS} runs; these are {len(options.folders)}")
    try:
        print(write_comparison(options.folders, options.output))
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_status
    return 0


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="tools.compare_runs", description="Put several runs side by side on one page.")
    found.add_argument("folders", metavar="RUN_FOLDER", nargs="+", type=Path, help="what was output_dir of each")
    found.add_argument("--output", type=Path, default=Path("compare.html"), help="the page (compare.html)")
    return found


if __name__ == "__main__":
    sys.exit(main())
