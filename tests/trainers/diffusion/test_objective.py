"""The loss of a diffusion step, told by how much noise there was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.trainers.diffusion.objective import by_timestep


def test_each_timestep_is_in_one_band() -> None:
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    parts = by_timestep(losses, torch.tensor([0, 249, 250, 750, 999]))
    assert list(parts) == [f"by timestep/{band}" for band in ("0-249", "250-499", "500-749", "750-999")]
    assert [members.tolist() for _, members in parts.values()] == [
        [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1],
    ]  # fmt: skip
    assert torch.equal(sum(members for _, members in parts.values()), torch.ones(5))


def test_a_run_logs_the_bands(
    write_preset: Callable[..., Path], train: Callable[..., int], rows: Callable[[], list[dict[str, Any]]]
) -> None:
    """Most noise is the easiest to tell; the mean over the pictures is the loss, where no timestep has a weight."""
    keys = {"min_snr_gamma": 0, "debiased_estimation_loss": False, "max_train_steps": 4, "log_every": 4}
    assert train(write_preset("sdxl", **keys)) == 0
    (row,) = [row for row in rows() if "loss" in row]
    bands = {name: value for name, value in row.items() if name.startswith("by timestep/")}
    assert bands
    assert not [name for name in row if "members" in name]
    assert min(bands.values()) <= row["loss"] <= max(bands.values())
    assert row["loss"] == pytest.approx(sum(bands.values()) / len(bands), rel=0.5)
