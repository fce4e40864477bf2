"""Waiting for a training in another process."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path


def wait_for_steps(process: subprocess.Popen[str], out: Path, steps: int) -> None:
    """Until metrics.jsonl has that many lines, or the process has ended."""
    deadline = time.monotonic() + 90
    file = out / "metrics.jsonl"
    while process.poll() is None and time.monotonic() < deadline:
        if file.exists() and file.read_text(encoding="utf-8").count("\n") >= steps:
            return
        time.sleep(0.01)
