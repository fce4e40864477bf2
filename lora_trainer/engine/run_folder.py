"""The run's folder: the status that a supervisor reads, the metrics file, and which run they belong to."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lora_trainer import atomic
from lora_trainer.errors import Refusal

STATUS, METRICS, FACTS, REPORT = "status.json", "metrics.jsonl", "facts.json", "report.html"
RESERVED = ".at_work.json"
OF_ONE_RUN = (STATUS, METRICS, FACTS, REPORT)


@dataclass(frozen=True)
class RunFolder:
    """`output_dir` of the run `name`.

    People put many runs into one folder (a web UI's LoRA folder, often), so the files of another run are set aside
    under its name and come back when it goes on.
    """

    path: Path
    name: str

    @property
    def status_file(self) -> Path:
        return self.path / STATUS

    @property
    def metrics_file(self) -> Path:
        return self.path / METRICS

    @property
    def facts_file(self) -> Path:
        return self.path / FACTS

    @property
    def report_file(self) -> Path:
        return self.path / REPORT

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints" / self.name

    @property
    def samples(self) -> Path:
        return self.path / "sample"

    def file(self, ending: str) -> Path:
        """A file of this run, such as `-best.safetensors`."""
        return self.path / f"{self.name}{ending}"

    def status(self) -> dict[str, Any] | None:
        """What this run said last, or None when it never ran here."""
        for file in (self.status_file, self._aside(STATUS, self.name)):
            status = _read(file)
            if status is not None and status.get("output_name") == self.name:
                return status
        return None

    def refuse_if_closed(self) -> None:
        """Before minutes are spent on loading a model: whether there can be such a folder, and files in it."""
        there = next((place for place in (self.path, *self.path.parents) if os.path.lexists(place)), Path())
        if not there.is_dir():
            raise Refusal(f"output_dir: {there} is a file, so nothing can be written below it; give another folder")
        if not os.access(there, os.W_OK):
            raise Refusal(f"output_dir: {there} may not be written to; give another folder, or change its permissions")

    def refuse_if_busy(self) -> None:
        """Two programs writing one folder would spoil each other's files."""
        for status in (_read(self.status_file), _read(self.path / RESERVED)):
            if status is not None and status.get("state") == "running" and _alive(status):
                raise Refusal(
                    f"{self.path}: the run {status['output_name']} is at work in this folder (process "
                    f"{status['pid']}); wait for it, stop it, or give another output_dir"
                )

    def reserve(self) -> bool:
        """Keep other programs out while models are loaded, before there is a status. Gives whether the folder is new.
        Raises Refusal as above."""
        is_new = not self.path.exists()
        self._make()
        while True:
            try:
                file = (self.path / RESERVED).open("x", encoding="utf-8")
            except FileExistsError:
                self.refuse_if_busy()
                (self.path / RESERVED).unlink(missing_ok=True)  # of a program that was killed
                continue
            except OSError:  # a place that takes no more files says so when the first one is written
                return is_new
            with file:
                file.write(json.dumps(self._status("running")))
            return is_new

    def release(self, is_new: bool) -> None:
        """A new folder in which nothing was left goes again."""
        (self.path / RESERVED).unlink(missing_ok=True)
        if is_new:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def claim(self) -> None:
        """Make the folder this run's: set another run's files aside, fetch our own back."""
        self._make()
        current = _read(self.status_file)
        if current is not None and current.get("output_name") != self.name:
            for kind in OF_ONE_RUN:
                if (self.path / kind).exists():
                    (self.path / kind).replace(self._aside(kind, str(current.get("output_name"))))
        for kind in OF_ONE_RUN:
            aside = self._aside(kind, self.name)
            if aside.exists() and not (self.path / kind).exists():
                aside.replace(self.path / kind)

    def write_status(self, state: str, **facts: Any) -> None:
        """`state` is running, stopped, finished or failed. The file exists because launchers hide exit statuses."""
        content = self._status(state, **facts)
        atomic.write_text(self.status_file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def cut_metrics(self, done: int) -> None:
        cut_rows(self.metrics_file, done)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refusal(f"output_dir: {self.path} cannot be made ({error.strerror}); give another folder") from error

    def _status(self, state: str, **facts: Any) -> dict[str, Any]:
        process = {"pid": os.getpid(), "process_started": psutil.Process().create_time(), "time": time.time()}
        return {"output_name": self.name, "state": state, **facts, **process}

    def _aside(self, kind: str, name: str) -> Path:
        stem, suffix = kind.split(".")
        return self.path / f"{stem}-{name}.{suffix}"


def cut_rows(file: Path, done: int) -> None:
    """Drop the lines of steps that will be done again, and a half line that a kill left."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("step", done + 1) <= done:
            kept.append(line + "\n")
    atomic.write_text(file, "".join(kept))


def _read(file: Path) -> dict[str, Any] | None:
    try:
        status = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def _alive(status: Mapping[str, Any]) -> bool:
    pid = status.get("pid")
    if pid == os.getpid() or not isinstance(pid, int):
        return False
    try:
        return bool(abs(psutil.Process(pid).create_time() - float(status["process_started"])) < 1)
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
