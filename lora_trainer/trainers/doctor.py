"""Look at a data set and leave a page about it: of a preset, of a bare folder, and within a dry run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lora_trainer import atomic
from lora_trainer.config.reader import Loaded
from lora_trainer.data.doctor.dataset import Dataset
from lora_trainer.data.doctor.examination import Examination, examine
from lora_trainer.engine.console import counted
from lora_trainer.report.doctor.finding import Finding
from lora_trainer.report.doctor.page import all_findings, render, summary_lines
from lora_trainer.trainers.starts import STARTS

log = logging.getLogger(__name__)

PAGE = "dataset.html"


@dataclass(frozen=True)
class Diagnosis:
    examination: Examination
    findings: Sequence[Finding]

    @property
    def refused(self) -> tuple[str, ...]:
        """What a training would say."""
        return tuple(dict.fromkeys(each.sentence for each in self.examination.wrong))

    @property
    def lines(self) -> list[str]:
        return summary_lines(self.examination, self.findings)

    def write(self, file: Path) -> None:
        page, remark = render(self.examination, self.findings)
        if remark:
            log.info("the page has no charts: %s", remark)
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(file, page)


def diagnose(dataset: Dataset) -> Diagnosis:
    with counted("looking at the pictures", len(dataset.entries)) as advance:
        found = examine(dataset, advance)
    return Diagnosis(found, all_findings(found))


def dataset_of(loaded: Loaded) -> Dataset | None:
    """None where the trainer has no way to tell it."""
    start = STARTS[loaded.preset.trainer]
    with quiet_data():
        return start.call("dataset", loaded) if start.dataset else None


@contextmanager
def quiet_data() -> Iterator[None]:
    """Without what a training says of its data while it reads it: the page has all of that."""
    data = logging.getLogger("lora_trainer.data")
    before = data.level
    data.setLevel(logging.ERROR)
    try:
        yield
    finally:
        data.setLevel(before)


def leave_page(loaded: Loaded) -> None:
    """Of a dry run, which never fails because of it: the verdict as lines of the log, and the page."""
    try:
        dataset = dataset_of(loaded)
        if dataset is None:
            return
        diagnosis = diagnose(dataset)
        file = Path(loaded.preset.output_dir) / PAGE
        diagnosis.write(file)
    except Exception as error:
        log.warning("no page about the data set was written (%s: %s)", type(error).__name__, error)
        return
    for line in diagnosis.lines:
        log.info("%s", line)
    log.info("the data set: %s", file)
