"""Starting the planning of a preset in its own process, and hearing its lines as they come."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

PLANNING = "lora_trainer.editor.planning"
PATIENCE_S = 5.0  # for a process that was told to end


class Plan:
    """One planning; it needs torch, which takes memory and seconds that the editor itself does without."""

    def __init__(self, preset: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", PLANNING, str(preset)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "COLUMNS": "110"},
            start_new_session=True,  # Ctrl-C in the terminal is the editor's alone
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def lines(self, pause_s: float) -> Iterator[str | None]:
        """Each line; None whenever none came for so long, so that whoever listens can look around."""
        while True:
            try:
                line = self._lines.get(timeout=pause_s)
            except queue.Empty:
                yield None
                continue
            if line is None:
                return
            yield line

    def end(self) -> int:
        """Its exit status; a planning that is still at work is ended."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            return self.process.wait()

    def _kill(self) -> None:
        import psutil

        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
        self.process.kill()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self._lines.put(line.decode("utf-8", errors="replace").rstrip())
        self._lines.put(None)
