"""traiNNer-redux's sections (`datasets`, `train`, `path`, `val`, `logger`) as the flat keys of a preset.

A preset may be written flat, or as a traiNNer-redux file is, or as a mixture; the places in messages stay those of what
was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from lora_trainer.config.entries import Entry

OTHER_WORDS = {  # redux's words for keys that every trainer has
    "name": "output_name",
    "manual_seed": "seed",
    "print_freq": "log_every",
    "val.dataroot_gt": "val_dataroot_gt",
    "val.dataroot_lq": "val_dataroot_lq",
    "val.meta_info": "val_meta_info",
    "val.filename_tmpl": "val_filename_tmpl",
    "val.io_backend": "val_io_backend",
}
SILENT = {  # what the templates write and what says nothing about a training
    "datasets.train.name", "datasets.val.name", "datasets.val.type", "datasets.train.phase", "datasets.train.scale",
}  # fmt: skip
FORMER_LOSSES = {  # the tables of losses before June 2024, each with its type when it does not say one
    "pixel_opt": "l1loss", "mssim_opt": "mssimloss", "ms_ssim_l1_opt": "msssiml1loss",
    "perceptual_opt": "perceptualloss", "contextual_opt": "contextualloss",
    "dists_opt": "distsloss", "ldl_opt": "ldlloss", "hsluv_opt": "hsluvloss",
    "gan_opt": "ganloss", "color_opt": "colorloss", "luma_opt": "lumaloss", "avg_opt": "averageloss",
    "bicubic_opt": "bicubicloss", "ff_opt": "ffloss",
}  # fmt: skip


def unfold_sections(written: Mapping[str, Entry]) -> dict[str, Entry]:
    """Flat keys for everything; a key that stands at the top as well wins over its section's."""
    flat: dict[str, Entry] = {}
    for entry in _leaves(written):
        flat[entry.key] = entry
    flat |= {OTHER_WORDS.get(key, key): entry for key, entry in written.items() if not _is_section(key, entry)}
    flat |= {key: _single_word(entry, "type") for key, entry in flat.items() if key.endswith("io_backend")}
    _choose_tracker(flat)
    _gather_former_losses(flat)
    return {key: replace(entry, key=key) if key in OTHER_WORDS.values() else entry for key, entry in flat.items()}


def _is_section(key: str, entry: Entry) -> bool:
    return key in ("datasets", "train", "path", "val", "logger") and isinstance(entry.value, dict)


def _leaves(written: Mapping[str, Entry]) -> Iterator[Entry]:
    for name, section in written.items():
        if not _is_section(name, section) or not isinstance(section.value, dict):
            continue
        if name == "datasets":
            yield from _datasets(section)
        else:
            for key in section.value:
                yield from _leaf(section.inside(key), key)


def _datasets(section: Entry) -> Iterator[Entry]:
    for phase in section.value if isinstance(section.value, dict) else ():
        dataset = section.inside(phase)
        if not isinstance(dataset.value, dict):
            yield dataset
            continue
        for key in dataset.value:
            entry = dataset.inside(key)
            if f"datasets.{phase}.{key}" in SILENT:
                continue
            if phase == "train":
                yield from _leaf(entry, "dataset_type" if key == "type" else key)
            elif f"val.{key}" in OTHER_WORDS:
                yield replace(entry, key=OTHER_WORDS[f"val.{key}"])
            else:
                yield entry  # under its long name, which no trainer has: an unknown key of the validation


def _leaf(entry: Entry, key: str) -> Iterator[Entry]:
    if key == "wandb" and isinstance(entry.value, dict):
        for inner in entry.value:
            yield replace(entry.inside(inner), key=f"wandb_{inner}")
    else:
        yield replace(entry, key=OTHER_WORDS.get(key, key))


def _single_word(entry: Entry, word: str) -> Entry:
    """`io_backend: {type: disk}` says no more than `disk`."""
    if isinstance(entry.value, dict) and set(entry.value) == {word}:
        return replace(entry.inside(word), key=entry.key)
    return entry


def _choose_tracker(flat: dict[str, Entry]) -> None:
    """`use_tb_logger` and a project of wandb say what `log_with` says."""
    tensorboard, project = flat.pop("use_tb_logger", None), flat.pop("wandb_project", None)
    flat.pop("wandb_resume_id", None)
    if project is not None and not project.is_blank:
        flat.setdefault("log_with", replace(project, key="log_with", value="wandb"))
        flat.setdefault("log_tracker_name", replace(project, key="log_tracker_name"))
    elif tensorboard is not None and tensorboard.value is False:
        flat.setdefault("log_with", replace(tensorboard, key="log_with", value="none"))


def _gather_former_losses(flat: dict[str, Entry]) -> None:
    """`pixel_opt`, `gan_opt` and the like become items of `losses`."""
    former = [flat.pop(key) for key in list(flat) if key in FORMER_LOSSES]
    given = [entry for entry in former if isinstance(entry.value, dict)]
    if not given:
        return
    losses = [{"type": FORMER_LOSSES[entry.key], **entry.value} for entry in given if isinstance(entry.value, dict)]
    present = flat.get("losses")
    if present is not None and isinstance(present.value, list):
        losses = [*present.value, *losses]
    flat["losses"] = replace(given[0], key="losses", value=losses, source=None)
