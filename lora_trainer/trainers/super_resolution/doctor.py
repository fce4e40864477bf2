"""The pictures of a super-resolution training for the dataset doctor, before any of them is opened."""

from __future__ import annotations

from lora_trainer.config.reader import Loaded
from lora_trainer.config.super_resolution import SuperResolutionPreset
from lora_trainer.data.doctor.dataset import MEASURED, OTHER, TRAINED, Dataset, Entry, Wrong
from lora_trainer.data.doctor.rules import ManyRules, PairRules
from lora_trainer.data.pairs import ENDINGS, PairSettings, matched_pairs, size_misfits
from lora_trainer.trainers.job import attempt
from lora_trainer.trainers.paired_doctor import pair_entries
from lora_trainer.trainers.super_resolution.job import held_out_settings, training_settings


def super_resolution_dataset(loaded: Loaded) -> Dataset:
    preset = loaded.preset
    assert isinstance(preset, SuperResolutionPreset)
    parts: list[tuple[str, PairSettings]] = [(TRAINED, training_settings(preset))]
    if preset.validates:
        parts.append((MEASURED, held_out_settings(preset)))
    problems: list[str] = []
    entries: list[Entry] = []
    rules: list[PairRules] = []
    for use, settings in parts:
        pairs, missing = attempt(lambda settings=settings: matched_pairs(settings), problems) or ([], [])  # type: ignore[misc]
        problems += missing
        found, numbers = pair_entries(pairs, use, len(entries))
        entries += found
        rules.append(PairRules(tuple(pairs), tuple(numbers), settings, size_misfits))
    if not entries and not problems:
        problems.append(f"{', '.join(preset.dataroot_gt)}: there are no pictures ({', '.join(ENDINGS)})")
    return Dataset(
        f"{loaded.path.name}, a preset of the trainer super_resolution",
        tuple(entries),
        ManyRules(tuple(rules)),
        preset.batch_size_per_gpu * preset.accum_iter,
        problems=tuple(Wrong(OTHER, text) for text in problems),
        rows=(
            ("scale", f"{preset.scale}x"),
            ("crops", f"{preset.gt_px} px of the originals, {preset.lq_px} px in low resolution"),
        ),
        crop_px=preset.gt_px,
    )
