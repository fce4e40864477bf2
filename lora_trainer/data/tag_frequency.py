"""How often each tag stands in the captions: what web UIs show of a LoRA file, and suggest prompts from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lora_trainer.data.captions import split_tags
from lora_trainer.data.survey import Sample


def tag_frequency(samples: Iterable[Sample]) -> dict[str, dict[str, int]]:
    """In how many captions each lower-case tag stands, per folder: the file's ``ss_tag_frequency``.

    Counted as written in the files: between commas, in every line that may be used, without prefix and suffix.
    """
    counts: dict[str, Counter[str]] = {}
    for sample in samples:
        tags = [tag.lower() for line in sample.caption.split("\n") for tag in split_tags(line, ",")]
        counts.setdefault(sample.folder, Counter()).update(tags)
    return {folder: dict(counted) for folder, counted in counts.items()}
