"""Masks as the loss sees them: from transparency or from a picture of its own, in latent pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.data.buckets import Placement
from lora_trainer.data.masks import read_mask
from lora_trainer.errors import Refusal

WHOLE = Placement((32, 48), (32, 48), (0, 0))


def half(tmp_path: Path) -> np.ndarray:
    """The left 20 of 48 columns count."""
    values = np.zeros((32, 48), np.uint8)
    values[:, :20] = 255
    return values


def test_a_mask_is_the_mean_over_latent_pixels(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(half(tmp_path)).save(path)
    mask = read_mask(path, WHOLE, alpha=False)
    assert mask.shape == (1, 4, 6)
    assert mask[0, 0].tolist() == [1, 1, 0.5, 0, 0, 0]
    cropped = read_mask(path, Placement((16, 16), (32, 48), (8, 16)), alpha=False)
    assert cropped.tolist() == [[[0.5, 0], [0.5, 0]]]


def test_a_mask_of_another_size_is_averaged_to_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(half(tmp_path)).resize((96, 64), Image.Resampling.NEAREST).convert("RGB").save(path)
    assert torch.equal(read_mask(path, WHOLE, alpha=False), read_mask(path, WHOLE, alpha=False).round(decimals=6))
    assert read_mask(path, WHOLE, alpha=False)[0, 0].tolist() == pytest.approx([1, 1, 0.5, 0, 0, 0])


def test_transparency_is_a_mask(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture = Image.new("RGB", (48, 32), "green")
    picture.save(path)
    assert torch.equal(read_mask(path, WHOLE, alpha=True), torch.ones(1, 4, 6))
    picture.putalpha(Image.fromarray(half(tmp_path)))
    picture.save(path)
    assert read_mask(path, WHOLE, alpha=True)[0, 2].tolist() == [1, 1, 0.5, 0, 0, 0]


def test_a_broken_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(b"no picture")
    with pytest.raises(Refusal, match=r"mask.png: the mask cannot be read"):
        read_mask(path, WHOLE, alpha=False)


def test_a_mask_of_sixteen_bits_is_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    values = np.full((32, 48), 65535, np.uint16)
    values[:, 24:] = 13107
    Image.fromarray(values).save(path)
    assert read_mask(path, WHOLE, alpha=False)[0, 0].tolist() == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2])
