"""Checkpoints: complete or not there, newest first, with a manifest that says what run they belong to."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_trainer import atomic

FORMAT = 1
STATE, MANIFEST = "state.pt", "manifest.json"


@dataclass(frozen=True)
class Found:
    """A checkpoint whose manifest was read.

    `kept` ones are states that a preset names. They may be of another run, and `changes` says what was different there.
    """

    folder: Path
    manifest: Mapping[str, Any]
    changes: tuple[str, ...] = ()
    kept: bool = False

    @property
    def step(self) -> int:
        """The number of steps that were done."""
        return int(self.manifest["step"])

    def load(self) -> dict[str, Any]:
        """The saved state, on the CPU. Read without unpickling anything but tensors and plain values."""
        state: dict[str, Any] = torch.load(self.folder / STATE, map_location="cpu", weights_only=True)
        return state


def read_state(folder: Path) -> Found | None:
    """The state in a folder, if it is there and whole."""
    manifest = _whole(folder)
    return None if manifest is None else Found(folder, manifest)


class CheckpointFolder:
    """The checkpoints of one run: `step-00000012/` with `state.pt` and `manifest.json`."""

    def __init__(self, folder: Path, keep: int = 1) -> None:
        self.folder = folder
        self.keep = keep

    def newest(self) -> Found | None:
        """The newest whole checkpoint, or None. What is damaged is passed over."""
        return next((found for folder in self._folders() if (found := read_state(folder)) is not None), None)

    def save(self, step: int, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then remove the older ones. OSError or RuntimeError when the disk is full; the newest
        complete checkpoint is still there then.

        Those of later steps go too: a run goes on from the newest whole one, so they are damaged.
        """
        final = self.folder / f"step-{step:08d}"
        if final.exists():
            if _whole(final) is not None:
                return final
            atomic.remove_folder(final)
        with atomic.staged_folder(final) as staged:
            with (staged / STATE).open("wb") as file:  # an open file: torch puts a path's name into the bytes
                torch.save(dict(state), file)
            whole = {**manifest, "format": FORMAT, "step": step, "sha256": _digest(staged / STATE)}
            (staged / MANIFEST).write_text(json.dumps(whole, indent=1, ensure_ascii=False), encoding="utf-8")
        folders = self._folders()
        place = folders.index(final)
        self._remove([*folders[:place], *folders[place + self.keep :]])
        return final

    def clear(self) -> None:
        """Remove all of them: the run has ended well, or begins anew."""
        self._remove(self._folders())
        if self.folder.is_dir():
            atomic.sweep(self.folder)
            for folder in (self.folder, self.folder.parent):
                if not any(folder.iterdir()):
                    folder.rmdir()

    def free_gib(self) -> float:
        there = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.is_dir())
        return shutil.disk_usage(there).free / 2**30

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        named = [folder for folder in self.folder.iterdir() if re.fullmatch(r"step-\d{8,}", folder.name)]
        return sorted(named, key=lambda folder: int(folder.name[5:]), reverse=True)

    def _remove(self, folders: list[Path]) -> None:
        for folder in folders:
            atomic.remove_folder(folder)


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What distinguishes two fingerprints, one phrase a key."""
    return [
        f"{key} was {_spoken(saved.get(key))} and is now {_spoken(current.get(key))}"
        for key in sorted({*saved, *current})
        if saved.get(key) != current.get(key)
    ]


def _spoken(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _whole(folder: Path) -> dict[str, Any] | None:
    """The manifest of a checkpoint whose state is the one that was written, or None."""
    manifest = _read_manifest(folder)
    return manifest if manifest is not None and _digest(folder / STATE) == manifest.get("sha256") else None


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def _digest(file: Path) -> str | None:
    if not file.is_file():
        return None
    with file.open("rb") as handle:
        digest = hashlib.sha256()
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
