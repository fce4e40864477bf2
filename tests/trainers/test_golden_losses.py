"""The losses of twenty steps, written down: a change that is not meant to alter results leaves them alone.

`python -m pytest tests/trainers/test_golden_losses.py --golden` writes them anew; say why in the change log.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parents[1] / "golden"
LORA: dict[str, Any] = {
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


FINETUNE: dict[str, Any] = {
    "max_epochs": 10,
    "shuffle_tags": True,
    "flip_p": 0.5,
    "cond_dropout": 0.1,
    "pyramid_noise_discount": 0.1,
    "embedding_perturbation": 1.0,
    "min_snr_gamma": 5,
    "clip_skip": 2,
    "lr_scheduler": "cosine",
    "grad_accum": 2,
    "batch_size": 1,
}


@pytest.mark.parametrize(
    ("fixture", "keys"), [("write_preset", LORA), ("write_finetune", FINETUNE)], ids=["lora", "finetune"]
)
def test_the_losses_are_those_that_were_written_down(
    fixture: str, keys: dict[str, Any], train: Callable[..., int], rows: Callable[[], list[dict[str, Any]]],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    preset = request.getfixturevalue(fixture)(**keys)
    golden = GOLDEN / f"{request.node.callspec.id}_losses.txt"
    assert train(preset) == 0
    losses = [row["loss"] for row in rows()]
    if request.config.getoption("--golden"):
        golden.write_text("".join(f"{loss:.6f}\n" for loss in losses), encoding="utf-8")
    written = [float(line) for line in golden.read_text(encoding="utf-8").splitlines()]
    assert len(written) == 20
    assert losses == pytest.approx(written, rel=1e-4)
