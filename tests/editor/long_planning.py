"""A planning that takes a minute before it says anything: `python -m tests.editor.long_planning preset.json`."""

from __future__ import annotations

import sys
import time

from lora_trainer.editor import planning

if __name__ == "__main__":
    planning.main = lambda arguments: time.sleep(60) or 1  # type: ignore[assignment, func-returns-value]
    sys.exit(planning.run(sys.argv[1]))
