"""Which base model a path holds, found out from names and shapes alone, so that a preset can be checked in no time.

Imports neither PyTorch nor diffusers. A PyTorch file (.ckpt) cannot be looked into without loading it: its kind stays
None here, and `detect_tensors` finds it when the file is read.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.checkpoint import KIND_WORDS, SUPPORTED, Checkpoint, Prediction
from lora_trainer.models.detect_folder import detect_folder
from lora_trainer.models.detect_tensors import detect_tensors
from lora_trainer.models.file_kinds import is_torch_file, known_stranger
from lora_trainer.models.fresh_description import SUFFIX as DESCRIPTION
from lora_trainer.models.fresh_description import read_description
from lora_trainer.models.safetensors_header import read_header

__all__ = ["Checkpoint", "check_agreement", "confirm", "detect", "detect_tensors"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MODEL_SUFFIXES = (".safetensors", ".ckpt", ".pt")
_SWITCHES: dict[Kind, str] = {
    "sd15": '"sdxl": false and "v2": false',
    "sd21": '"v2": true and "sdxl": false',
    "sdxl": '"sdxl": true and "v2": false',
}
_CURES = {
    "single_file": "give another base model",
    "folder": "correct scheduler/scheduler_config.json",
    "description": "correct its prediction",
}


def detect(path: Path) -> Checkpoint:
    """Look at a file or folder. Raises Refusal for anything that is no base model this package can train."""
    if path.is_dir():
        return detect_folder(path)
    if not path.is_file():
        raise _missing(path)
    if path.suffix.lower() == DESCRIPTION:
        return read_description(path).checkpoint
    if is_torch_file(path):
        return Checkpoint(path, "single_file", None, None, False, "a PyTorch file, which is looked into when loaded")
    if stranger := known_stranger(path):
        raise Refusal(f"{path}: this is {stranger}; {SUPPORTED}")
    header = read_header(path)
    return detect_tensors(path, header.shapes, header.metadata)


def _missing(path: Path) -> Refusal:
    if _HUB_ID.fullmatch(path.as_posix()) and path.suffix not in _MODEL_SUFFIXES:
        return Refusal(
            f"{path.as_posix()}: there is no such file or folder, and models are not downloaded; "
            "download it yourself, then give the path of the file or of the folder"
        )
    return Refusal(f"{path}: there is no such file or folder; correct the path of the base model")


def check_agreement(checkpoint: Checkpoint, *, sdxl: bool, v2: bool, v_parameterization: bool) -> Checkpoint:
    """Bring the preset's switches and the model together: kind and prediction are known afterwards.

    What the model does not tell, the switches decide. Raises Refusal where the two contradict each other.
    """
    if sdxl and v2:
        raise Refusal('"sdxl" and "v2" are both true; a base model is one of the two, so set the other one to false')
    wanted: Kind = "sdxl" if sdxl else "sd21" if v2 else "sd15"
    prediction: Prediction = "v_prediction" if v_parameterization else "epsilon"
    problems = []
    if checkpoint.kind not in (None, wanted):
        problems.append(_kind_problem(checkpoint, checkpoint.kind, f"the preset says {KIND_WORDS[wanted]}"))
    if checkpoint.prediction not in (None, prediction):
        problems.append(_prediction_problem(checkpoint, prediction))
    if problems:
        raise Refusal(*problems)
    return replace(checkpoint, kind=wanted, prediction=prediction)


def confirm(expected: Checkpoint, found: Checkpoint) -> Checkpoint:
    """The same for a file that was looked into only now. Raises Refusal when it is not what was expected."""
    if found.kind is not None and expected.kind not in (None, found.kind):
        raise Refusal(_kind_problem(found, found.kind, f"{KIND_WORDS[expected.kind]} was expected"))
    if found.prediction is not None and expected.prediction not in (None, found.prediction):
        raise Refusal(_prediction_problem(found, expected.prediction))
    return replace(found, prediction=expected.prediction or found.prediction)


def _kind_problem(found: Checkpoint, kind: Kind, other: str) -> str:
    return (
        f"{found.path}: this is a {KIND_WORDS[kind]} model ({found.evidence}), but {other}; "
        f"set {_SWITCHES[kind]}, or give another base model"
    )


def _prediction_problem(found: Checkpoint, other: Prediction) -> str:
    switch = "false" if other == "v_prediction" else "true"
    cure = _CURES[found.layout]
    return (
        f"{found.path}: this model predicts {found.prediction} ({found.evidence}), but the preset says {other}; "
        f'set "v_parameterization": {switch}, or {cure}'
    )
