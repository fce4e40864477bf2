"""Which caption a picture gets this time: tags shuffled, the first ones kept in place, the whole of it dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from lora_trainer.data.survey import Sample
from lora_trainer.draws import python_random, uniform


@dataclass(frozen=True)
class CaptionSettings:
    """sd-scripts' caption keys; a rate is a probability, and 0 switches each of them off."""

    shuffle: bool = False
    keep_tokens: int = 0
    dropout_rate: float = 0.0
    dropout_every_n_epochs: int = 0


def choose_caption(caption: str, settings: CaptionSettings, epoch: int, *key: int | str) -> str:
    """The caption to train on in this epoch (counted from 1), as a function of the key.

    The key should hold the seed, the step and the position in the whole batch: an item that is repeated within a batch
    then gets different captions. Tags are what stands between commas; the first ``keep_tokens`` stay where they are.
    Without shuffling the caption passes as it was written, spaces and all.
    """
    every = settings.dropout_every_n_epochs
    if every > 0 and epoch % every == 0:
        return ""
    if settings.dropout_rate > 0 and uniform(*key, "caption dropout") < settings.dropout_rate:
        return ""
    if not settings.shuffle:
        return caption
    tags = _tags(caption)
    kept, moving = tags[: settings.keep_tokens], tags[settings.keep_tokens :]
    python_random(*key, "caption shuffle").shuffle(moving)
    return ", ".join(kept + moving)


def tag_frequency(samples: Iterable[Sample]) -> dict[str, dict[str, int]]:
    """In how many captions each lower-case tag stands, per folder: the file's ``ss_tag_frequency``."""
    counts: dict[str, Counter[str]] = {}
    for sample in samples:
        counts.setdefault(sample.folder, Counter()).update(tag.lower() for tag in _tags(sample.caption))
    return {folder: dict(counted) for folder, counted in counts.items()}


def _tags(caption: str) -> list[str]:
    """The tags without the blanks around them; what a doubled or trailing comma leaves empty is no tag."""
    return [tag for part in caption.split(",") if (tag := part.strip())]
