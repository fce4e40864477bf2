"""The run's folder for a GAN's preset that gives `outdir`, as train.py does, and no `output_dir`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath

from lora_trainer.config.entries import Entry

ARCHIVES = (".zip",)


def unfold_gan(written: Mapping[str, Entry]) -> dict[str, Entry]:
    """The keys with `output_dir`: outdir/cfg-data-batch32-gamma8.2-desc.

    train.py puts a new number in front for every start; here the same command goes on in the same folder. The number
    of processes is not in the name, as it changes nothing.
    """
    flat = dict(written)
    root = flat.get("outdir")
    present = flat.get("output_dir")
    if root is None or not isinstance(root.value, str) or root.is_blank or (present and not present.is_blank):
        return flat
    folder = root.value.strip().rstrip("/\\") or root.value.strip()
    path = root.value if root.is_placeholder else f"{folder}/{_run_name(flat)}"
    flat["output_dir"] = replace(root, key="output_dir", value=path, text=None)
    return flat


def _run_name(flat: Mapping[str, Entry]) -> str:
    parts = [_said(flat, "cfg").casefold(), _stem(_said(flat, "data"))]
    parts += [f"{key}{_said(flat, key)}" for key in ("batch", "gamma") if _said(flat, key)]
    parts.append(_said(flat, "desc"))
    return "-".join(part for part in parts if part)


def _said(flat: Mapping[str, Entry], key: str) -> str:
    entry = flat.get(key)
    if entry is None or entry.is_blank or isinstance(entry.value, (bool, dict, list)):
        return ""
    if isinstance(entry.value, (int, float)) and key in ("batch", "gamma"):
        return f"{entry.value:g}"
    return str(entry.value).strip()


def _stem(path: str) -> str:
    """The last part of a path of any system, without the ending of an archive."""
    name = PureWindowsPath(PurePosixPath(path.rstrip("/\\")).name).name
    return next((name[: -len(ending)] for ending in ARCHIVES if name.casefold().endswith(ending)), name)
