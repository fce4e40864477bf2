"""Write `report.html` into a run's folder, from what lies there, and a page that compares several runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lora_trainer import atomic
from lora_trainer.report.compare import render_comparison
from lora_trainer.report.page import render
from lora_trainer.report.run_files import read_run

log = logging.getLogger(__name__)


def write_report(path: Path, output: Path | None = None) -> Path:
    """The report of the run that is in the folder. Gives the file. Raises Refusal where no run is in it."""
    run = read_run(path)
    page, remark = render(run)
    if remark:
        log.info("the report has no curves: %s", remark)
    file = output or run.folder.report_file
    atomic.write_text(file, page)
    return file


def write_comparison(paths: Sequence[Path], output: Path) -> Path:
    """A page with the runs of the folders side by side. Raises Refusal."""
    atomic.write_text(output, render_comparison([read_run(path) for path in paths]))
    return output


def leave_report(path: Path) -> None:
    """The report at the end of a run, whose end it never changes: what goes wrong is a line of the log."""
    try:
        log.info("report: %s", write_report(path))
    except Exception as error:
        log.warning("no report was written (%s: %s)", type(error).__name__, error)
