"""TensorBoard, wandb and swanlab through accelerate's trackers."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_trainer.config.common import CommonPreset
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.errors import Refusal

log = logging.getLogger(__name__)

Track = Callable[[Mapping[str, float], int], None]


@contextlib.contextmanager
def open_trackers(preset: CommonPreset, folder: RunFolder, processes: Processes, start: int) -> Iterator[Track]:
    """Give a function (values, step) that records in every tracker of the preset; main process only.

    `start` is the number of steps already done: TensorBoard forgets what it has beyond it.
    """
    names = tracker_names(preset.log_with)
    if not processes.is_main or not names:
        yield lambda row, step: None
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    if "wandb" in names and (key := preset.wandb_api_key.get_secret_value()):
        os.environ["WANDB_API_KEY"] = key
    logs = Path(preset.logging_dir) if preset.logging_dir else folder.path / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    run_name = preset.wandb_run_name or preset.output_name
    options: dict[str, dict[str, Any]] = {
        "tensorboard": {"logging_dir": str(logs), "purge_step": start + 1 if start else None},
        "wandb": {"name": run_name, "dir": str(logs)},
        "swanlab": {"experiment_name": run_name, "logdir": str(logs)},
    }
    project = run_name if names == ("tensorboard",) else "lora_trainer"
    trackers = []
    for name in names:
        tracker = LOGGER_TYPE_TO_CLASS[name](run_name if name == "tensorboard" else project, **options[name])
        tracker.start()
        trackers.append(tracker)

    def track(row: Mapping[str, float], step: int) -> None:
        for tracker in trackers:
            tracker.log(dict(row), step=step)

    try:
        yield track
    finally:
        for tracker in trackers:
            tracker.finish()


def tracker_names(log_with: str) -> tuple[str, ...]:
    """The trackers of `log_with`; `all` takes what is there. Refusal when a named one is not installed."""
    there = {name for name in ("tensorboard", "wandb", "swanlab") if importlib.util.find_spec(name) is not None}
    if log_with == "none":
        return ()
    if log_with == "all":
        return tuple(sorted(there))
    if log_with not in there:
        raise Refusal(
            f'log_with "{log_with}": the package {log_with} is not installed; `pip install {log_with}`, '
            'or set log_with to "tensorboard" or "none"'
        )
    return (log_with,)
