"""The tags that the file's metadata count."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.data.buckets import Placement
from lora_trainer.data.survey import Sample
from lora_trainer.data.tag_frequency import tag_frequency


def test_tag_frequency_counts_what_is_written() -> None:
    def sample(folder: str, caption: str) -> Sample:
        return Sample("n", Path("n"), folder, 10, caption, (8, 8), "", Placement((8, 8), (8, 8), (0, 0)))

    samples = [sample("1_a", "Cat, tree,"), sample("1_a", "cat,cat"), sample("2_b", "dog, cat\n{a|b} ||| c, dog")]
    assert tag_frequency(samples) == {"1_a": {"cat": 3, "tree": 1}, "2_b": {"dog": 2, "cat": 1, "{a|b} ||| c": 1}}
