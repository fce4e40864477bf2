"""The pictures of a restorer's training for the dataset doctor, before any of them is opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lora_trainer.config.reader import Loaded
from lora_trainer.config.restoration import RestorationPreset
from lora_trainer.data.doctor.dataset import MEASURED, OTHER, TRAINED, Dataset, Entry, Wrong
from lora_trainer.data.doctor.rules import ManyRules, PairRules
from lora_trainer.data.pairs import Pair, PairFacts, PairSettings
from lora_trainer.data.restoration_pairs import found_pairs, partner_misfits
from lora_trainer.data.restoration_sizes import too_small_to_measure
from lora_trainer.trainers.job import attempt
from lora_trainer.trainers.paired_doctor import pair_entries
from lora_trainer.trainers.restoration.job import held_out_sources, training_sources


def restoration_dataset(loaded: Loaded) -> Dataset:
    preset = loaded.preset
    assert isinstance(preset, RestorationPreset)
    parts = [(TRAINED, training_sources(preset), partner_misfits)]
    if preset.val_dir:
        parts.append((MEASURED, held_out_sources(preset), _measured_misfits))
    problems: list[str] = []
    entries: list[Entry] = []
    rules: list[PairRules] = []
    for use, sources, misfits in parts:
        pairs = attempt(lambda sources=sources: found_pairs(sources, problems), problems) or []  # type: ignore[misc]
        found, numbers = pair_entries(pairs, use, len(entries))
        entries += found
        rules.append(PairRules(tuple(pairs), tuple(numbers), PairSettings(()), misfits))
    return Dataset(
        f"{loaded.path.name}, a preset of the trainer restoration",
        tuple(entries),
        ManyRules(tuple(rules)),
        preset.batch_size * preset.gradient_accumulation_steps,
        problems=tuple(Wrong(OTHER, text) for text in problems),
        rows=(("squares", f"{preset.out_size} px"),),
        crop_px=preset.out_size,
        enlarges=True,
    )


def _measured_misfits(pair: Pair, facts: PairFacts, settings: PairSettings) -> Iterable[str]:
    yield from partner_misfits(pair, facts, settings)
    yield from too_small_to_measure([replace(pair, gt_px=facts.gt_px)])
