"""What lies in a run's folder, read for a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.engine.run_facts import RunFacts, read_facts
from lora_trainer.engine.run_folder import METRICS, STATUS, RunFolder
from lora_trainer.errors import Refusal
from lora_trainer.report.curves import Curve, curves_of, read_rows
from lora_trainer.report.samples import Gallery, gallery_of

BEST = "-best"


@dataclass(frozen=True)
class RunFiles:
    """A run as its folder tells it. `facts` are None for runs that wrote none."""

    folder: RunFolder
    status: Mapping[str, Any]
    curves: Mapping[str, Curve]
    facts: RunFacts | None
    gallery: Gallery

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def best_file(self) -> str:
        """The name of the file that validation found best, or nothing."""
        names = sorted(file.name for file in self.folder.path.glob(f"*{BEST}*") if file.stem == self.name + BEST)
        return names[-1] if names else ""  # .safetensors comes after .pth


def read_run(path: Path) -> RunFiles:
    """The run that was the last one in the folder. Raises Refusal where there is none."""
    status = _status(path)
    folder = RunFolder(path, str(status.get("output_name", path.name)))
    rows, facts = read_rows(path / METRICS), read_facts(folder.facts_file)
    if facts is not None and facts.output_name != folder.name:
        facts = None  # of another run that was in the folder
    return RunFiles(folder, status, curves_of(rows), facts, gallery_of(path, folder.name, rows))


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
