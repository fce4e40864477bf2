"""Waiting for a training in another process, and stopping one in this."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.engine.loop import Loop


def wait_for_steps(process: subprocess.Popen[str], out: Path, steps: int) -> None:
    """Until metrics.jsonl has that many lines, or the process has ended."""
    deadline = time.monotonic() + 90
    file = out / "metrics.jsonl"
    while process.poll() is None and time.monotonic() < deadline:
        if file.exists() and file.read_text(encoding="utf-8").count("\n") >= steps:
            return
        time.sleep(0.01)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Have the next run in this process hear a signal once."""
    whole = Loop._step

    def step(self: Loop, number: int, *rest: Any) -> None:
        if number + 1 == steps and not heard:
            self.stop.signal = 15
            heard.append(number)
        whole(self, number, *rest)

    heard: list[int] = []
    monkeypatch.setattr(Loop, "_step", step)
