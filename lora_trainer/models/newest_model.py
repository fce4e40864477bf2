"""The newest diffusers folder that earlier runs have left: what EveryDream2 calls findlast."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.errors import Refusal

INDEX = "model_index.json"
FAILED, AVERAGED = "errored", "_ema"


def newest_model(folder: Path, without: Path | None = None) -> Path:
    """The folder whose model_index.json is the youngest below ``folder``, however deep; averaged models do not count.

    Nor does what lies in ``without``: the folder of the run itself, which would otherwise begin anew with its own
    models. Raises Refusal where there is none, and where the newest is of a run that failed.
    """
    found = [index for index in folder.rglob(INDEX) if not _is_left_out(index.parent, without)]
    if not found:
        raise Refusal(f"resume_ckpt: there is no diffusers folder below {folder}; name the model")
    newest = max(found, key=lambda index: (index.stat().st_mtime_ns, str(index))).parent
    if FAILED in newest.name:
        raise Refusal(f"resume_ckpt: the newest model, {newest}, is of a run that failed; name the model")
    return newest


def _is_left_out(model: Path, without: Path | None) -> bool:
    own = without is not None and model.resolve().is_relative_to(without.resolve())
    return own or model.name.endswith(AVERAGED)
