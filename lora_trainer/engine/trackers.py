"""TensorBoard, wandb and swanlab through accelerate's trackers: numbers, pictures and the preset."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_trainer import atomic
from lora_trainer.config.common import CommonPreset
from lora_trainer.config.public import public_values
from lora_trainer.config.toml_file import read_toml
from lora_trainer.engine.phase import DrawnPicture
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.run_folder import RunFolder
from lora_trainer.errors import Refusal, did_you_mean

log = logging.getLogger(__name__)

NAMES = ("tensorboard", "wandb", "swanlab")
PROJECT = "lora_trainer"  # where log_tracker_name says nothing
TAKES = {
    "tensorboard": "a folder that can be written to",
    "wandb": "`wandb login`, a wandb_api_key, or the variable WANDB_MODE=offline",
    "swanlab": "`swanlab login`, or the variable SWANLAB_MODE=offline",
}


class Trackers:
    """The open trackers of a run; none in any process but the main one."""

    def __init__(self, opened: Sequence[Any] = ()) -> None:
        self.opened = opened

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers after so many steps."""
        for tracker in self.opened:
            tracker.log(dict(values), step=step)

    def log_pictures(self, pictures: Sequence[DrawnPicture], step: int) -> None:
        """The files after so many steps, each under its name."""
        for picture in pictures if self.opened else ():
            with Image.open(picture.path) as image:
                pixels = np.array(image.convert("RGB"))
            for tracker in self.opened:
                _log_picture(tracker, picture, pixels, step)

    def log_preset(self, values: Mapping[str, object], step: int) -> None:
        """What the run was made with. In TensorBoard as text: its table of parameters would be a run of its own."""
        for tracker in self.opened:
            if tracker.name == "tensorboard":
                text = json.dumps(values, indent=1, ensure_ascii=False)
                tracker.log({"preset": "".join(f"    {line}\n" for line in text.splitlines())}, step=step)
            else:
                tracker.store_init_configuration(dict(values))


NO_TRACKERS = Trackers()


@contextlib.contextmanager
def open_trackers(preset: CommonPreset, folder: RunFolder, processes: Processes, start: int) -> Iterator[Trackers]:
    """The trackers of the preset, in the main process; closed at the end. Refusal when one cannot be opened.

    `start` is the number of steps already done: TensorBoard forgets what it has beyond it, and the others go on with
    the run that they have.
    """
    names = tracker_names(preset.log_with)
    if not processes.is_main or not names:
        yield NO_TRACKERS
        return
    if "wandb" in names and (key := preset.wandb_api_key.get_secret_value()):
        os.environ["WANDB_API_KEY"] = key
    given = tracker_options(preset)
    opened: list[Any] = []
    try:
        for name in names:
            opened.append(_opened(name, _with_mode(name, _options(name, preset, folder, start) | given.get(name, {}))))
        trackers = Trackers(opened)
        if preset.log_config:
            trackers.log_preset(public_values(preset), start)
        yield trackers
    finally:
        for tracker in opened:
            tracker.finish()


def check_trackers(preset: CommonPreset) -> None:
    """Refusal for what is known to be wrong before anything is loaded."""
    tracker_names(preset.log_with)
    tracker_options(preset)


def tracker_names(log_with: str) -> tuple[str, ...]:
    """The trackers of `log_with`; `all` takes what is there. Refusal when a named one is not installed."""
    there = [name for name in NAMES if importlib.util.find_spec(name) is not None]
    if log_with == "none":
        return ()
    if log_with == "all":
        return tuple(there)
    if log_with not in there:
        raise Refusal(
            f'log_with "{log_with}": the package {log_with} is not installed; type `pip install '
            f'"lora_trainer[{log_with}]"`, or set log_with to "tensorboard" or "none"'
        )
    return (log_with,)


def tracker_options(preset: CommonPreset) -> dict[str, dict[str, Any]]:
    """The tables of `log_tracker_config`, each for the tracker it is named after. Refusal for a wrong file."""
    if not preset.log_tracker_config or preset.log_with == "none":
        return {}
    path = Path(preset.log_tracker_config)
    tables = read_toml(path, "log_tracker_config")
    problems = [
        f"log_tracker_config: {path}: {name}: write a table for a tracker, such as [wandb]{did_you_mean(name, NAMES)}"
        for name, table in tables.items()
        if name not in NAMES or not isinstance(table, dict)
    ]
    if problems:
        raise Refusal(*problems)
    return tables


def log_folder(preset: CommonPreset, folder: RunFolder) -> Path:
    """Where the trackers write."""
    return Path(preset.logging_dir) if preset.logging_dir else folder.path / "logs"


def _options(name: str, preset: CommonPreset, folder: RunFolder, start: int) -> dict[str, Any]:
    """What a tracker is opened with, but for what `log_tracker_config` says. The project is the tracker's name."""
    logs, project = log_folder(preset, folder), preset.log_tracker_name
    logs.mkdir(parents=True, exist_ok=True)
    run_name = preset.wandb_run_name or preset.output_name
    if name == "tensorboard":
        purge_step = start + 1 if start else None
        return {"project": run_name, "logging_dir": str(logs / project), "purge_step": purge_step}
    if name == "swanlab":
        project = re.sub(r"[^0-9a-zA-Z_+.-]", "-", project)  # it takes no other signs
    options = {"project": project or PROJECT, "name": run_name, "id": _run_id(name, folder, start), "resume": "allow"}
    return options | {"dir" if name == "wandb" else "log_dir": str(logs)}


def _run_id(name: str, folder: RunFolder, start: int) -> str:
    """The one under which the tracker knows the run, so that a resumed training goes on in it."""
    file = folder.path / "logs" / f"{folder.name}-{name}-id.txt"
    if start and file.is_file():
        return file.read_text(encoding="utf-8").strip()
    file.parent.mkdir(parents=True, exist_ok=True)
    found = secrets.token_hex(16)[:21]  # the length that swanlab gives its own
    atomic.write_text(file, found + "\n")
    return found


def _with_mode(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """swanlab would ask for a key, and wait. Without one it records what can be sent later, unless told otherwise."""
    if name != "swanlab" or "mode" in options or os.environ.get("SWANLAB_MODE") or _has_swanlab_key():
        return options
    log.info(
        "log_with: swanlab has no API key here, so the run is recorded offline in %s; `swanlab login` records the next "
        "one online, and `swanlab sync` sends this one",
        options["log_dir"],
    )
    return {**options, "mode": "offline"}


def _has_swanlab_key() -> bool:
    """From `swanlab login` or its variable. Versions that do not tell are believed to have one."""
    import swanlab  # type: ignore[import-not-found]

    try:
        return bool(swanlab.Settings().api_key)
    except (AttributeError, TypeError):
        return True


def _opened(name: str, options: Mapping[str, Any]) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    rest = {key: value for key, value in options.items() if key != "project"}
    try:
        tracker = LOGGER_TYPE_TO_CLASS[name](options["project"], **rest)
        tracker.start()
    except Exception as error:  # whatever a service or its configuration raises
        wrong_option = isinstance(error, (TypeError, ValueError))
        cure = "look at log_tracker_config" if wrong_option else f"it takes {TAKES[name]}"
        said = " ".join(str(error).split())
        raise Refusal(f"log_with: {name} cannot be started ({type(error).__name__}: {said}); {cure}") from error
    return tracker


def _log_picture(tracker: Any, picture: DrawnPicture, pixels: np.ndarray, step: int) -> None:
    """`pixels` are (h, w, 3)."""
    if tracker.name == "tensorboard":
        tracker.log_images({picture.name: pixels[None]}, step=step, dataformats="NHWC")
        return
    package = importlib.import_module(tracker.name)
    tracker.log({picture.name: [package.Image(Image.fromarray(pixels), caption=picture.caption)]}, step=step)
