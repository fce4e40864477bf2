"""Write `report.html` into a run's folder, from what lies there."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from lora_trainer import atomic
from lora_trainer.engine.run_facts import read_facts
from lora_trainer.engine.run_folder import METRICS, STATUS, RunFolder
from lora_trainer.errors import Refusal
from lora_trainer.report.curves import curves_of, read_rows
from lora_trainer.report.page import render
from lora_trainer.report.samples import gallery_of

log = logging.getLogger(__name__)


def write_report(path: Path, output: Path | None = None) -> Path:
    """The report of the run that is in the folder. Gives the file. Raises Refusal where no run is in it."""
    status = _status(path)
    folder = RunFolder(path, str(status.get("output_name", path.name)))
    rows = read_rows(path / METRICS)
    facts = read_facts(folder.facts_file)
    if facts is not None and facts.output_name != folder.name:
        facts = None  # of another run that was in the folder
    gallery = gallery_of(path, folder.name, rows)
    page, remark = render(folder.name, status, curves_of(rows), facts, gallery)
    if remark:
        log.info("the report has no curves: %s", remark)
    file = output or folder.report_file
    atomic.write_text(file, page)
    return file


def leave_report(path: Path) -> None:
    """The same at the end of a run, whose end it never changes: what goes wrong is a line of the log."""
    try:
        log.info("report: %s", write_report(path))
    except Exception as error:
        log.warning("no report was written (%s: %s)", type(error).__name__, error)


def _status(path: Path) -> dict[str, Any]:
    file = path / STATUS
    try:
        status = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(f"{path}: no run is in this folder (there is no {STATUS}); give the output_dir of one") from None
    except (OSError, ValueError) as error:
        raise Refusal(f"{file}: cannot be read ({error}); give the folder of another run") from error
    if not isinstance(status, dict):
        raise Refusal(f"{file}: is not the status of a run; give the folder of another run")
    return status
