"""The losses of twenty steps, written down: a change that is not meant to alter results leaves them alone.

`python -m pytest tests/trainers/test_golden_losses.py --golden` writes them anew; say why in the change log.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "lora_losses.txt"
KEYS = {
    "epoch": 1,
    "max_train_steps": 20,
    "shuffle_caption": True,
    "flip_aug": True,
    "noise_offset": 0.05,
    "noise_offset_random_strength": True,
    "min_snr_gamma": 5,
    "optimizer": "AdamW",
    "gradient_accumulation_steps": 2,
}


def test_the_losses_are_those_that_were_written_down(
    write_preset: Callable[..., Path], train: Callable[..., int], rows: Callable[[], list[dict[str, Any]]],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    assert train(write_preset(**KEYS)) == 0
    losses = [row["loss"] for row in rows()]
    if request.config.getoption("--golden"):
        GOLDEN.write_text("".join(f"{loss:.6f}\n" for loss in losses), encoding="utf-8")
    written = [float(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    assert len(written) == 20
    assert losses == pytest.approx(written, rel=1e-4)
