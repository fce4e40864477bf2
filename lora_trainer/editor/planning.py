"""The check and the plan of a preset, in a process that ends when the editor closes its input or dies."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

from lora_trainer.__main__ import main

STOPPED = 143  # as after SIGTERM


def run(preset: str) -> int:
    """The exit status of the check, or when all is fine of the dry run."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    return main(["--preset", preset, "--check"]) or main(["--preset", preset, "--dry-run"])


def _end_with_input() -> None:
    """Wait until nobody holds the other end of the input any more, on every system; then leave nothing behind."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    import psutil

    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    os._exit(STOPPED)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
