"""The newest diffusers folder that earlier runs have left: what EveryDream2 calls findlast."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.errors import Refusal

INDEX = "model_index.json"
FAILED, AVERAGED = "errored", "_ema"


def newest_model(folder: Path, without: Path | None = None, *, averaged: bool = False) -> Path:
    """The folder whose model_index.json is the youngest below ``folder``, however deep. Averaged models do not count,
    or they alone.

    Nor does what lies in ``without``: the folder of the run itself, which would otherwise begin anew with its own
    models. Raises Refusal where there is none, and where the newest is of a run that failed.
    """
    key, kind = (
        ("ema_resume_model", f"diffusers folder *{AVERAGED}") if averaged else ("resume_ckpt", "diffusers folder")
    )
    models = (index for index in folder.rglob(INDEX) if index.parent.name.endswith(AVERAGED) == averaged)
    found = [index for index in models if not _is_of(index.parent, without)]
    if not found:
        raise Refusal(f"{key}: there is no {kind} below {folder}; name the model")
    newest = max(found, key=lambda index: (index.stat().st_mtime_ns, str(index))).parent
    if FAILED in newest.name:
        raise Refusal(f"{key}: the newest model, {newest}, is of a run that failed; name the model")
    return newest


def _is_of(model: Path, run: Path | None) -> bool:
    return run is not None and model.resolve().is_relative_to(run.resolve())
