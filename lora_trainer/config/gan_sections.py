"""The run's folder for a GAN's preset that gives `outdir`, as train.py does, and no `output_dir`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath

from lora_trainer.config.entries import Entry

ARCHIVE = ".zip"
SLASHES = "/\\"


def unfold_gan(written: Mapping[str, Entry]) -> dict[str, Entry]:
    """The keys with `output_dir`, where only `outdir` is given."""
    flat = dict(written)
    root, present = flat.get("outdir"), flat.get("output_dir")
    is_path = root is not None and isinstance(root.value, str) and not root.is_blank and not root.is_placeholder
    if root is None or not is_path or (present and not present.is_blank):
        return flat
    said = {key: _said(flat.get(key)) for key in ("cfg", "data", "batch", "gamma", "desc")}
    flat["output_dir"] = replace(root, key="output_dir", value=run_folder(_said(root), **said), text=None)
    return flat


def run_folder(outdir: str, *, cfg: str, data: str, batch: str, gamma: str, desc: str) -> str:
    """outdir/creps-afhqv2-512x512-batch32-gamma8.2-desc, without what is empty.

    train.py puts another number in front for every start; here the same command goes on in the same folder. The number
    of processes is not in the name, as it changes nothing.
    """
    batch, gamma = (f"{key}{_plain(number)}" if number else "" for key, number in (("batch", batch), ("gamma", gamma)))
    name = "-".join(part for part in (cfg.casefold(), _stem(data), batch, gamma, desc) if part)
    return f"{outdir.rstrip(SLASHES)}/{name}"


def _said(entry: Entry | None) -> str:
    """What a key says as text; nothing where it is not set or of a kind that will be refused."""
    if entry is None or entry.is_blank or isinstance(entry.value, (bool, dict, list)):
        return ""
    return str(entry.value if entry.text is None else entry.text).strip().strip('"').strip()


def _plain(number: str) -> str:
    """8.20 and 8.2 name the same folder."""
    try:
        return f"{float(number):g}"
    except ValueError:
        return number


def _stem(path: str) -> str:
    """The last part of a path of any system, without the ending of an archive."""
    name = PureWindowsPath(PurePosixPath(path.rstrip(SLASHES)).name).name
    return name[: -len(ARCHIVE)] if name.casefold().endswith(ARCHIVE) else name
