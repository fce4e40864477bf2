"""Choose the pictures that are not trained but measured."""

from __future__ import annotations

from collections.abc import Sequence

from lora_trainer.data.survey import Sample
from lora_trainer.draws import draw_key
from lora_trainer.errors import Refusal


def hold_out(samples: Sequence[Sample], share: float, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(to be trained, held out), each in the given order.

    A picture's lot follows from the seed and its content, so that a copy of it in another folder shares its lot and
    new pictures do not change the others' lots more than the share asks for. Raises Refusal when one part is empty.
    """
    lots = sorted({sample.digest: draw_key(seed, "held out", sample.digest) for sample in samples}.items(), key=_lot)
    chosen = {digest for digest, _ in lots[: max(1, round(share * len(lots)))]}
    trained = tuple(sample for sample in samples if sample.digest not in chosen)
    if not trained:
        raise Refusal(
            f"validation_split: {share:g} of {len(lots)} different pictures leaves none to train; add pictures, or use "
            "validation_data_dir"
        )
    return trained, tuple(sample for sample in samples if sample.digest in chosen)


def _lot(item: tuple[str, int]) -> int:
    return item[1]
