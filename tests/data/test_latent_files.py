"""A latent file proves itself: whatever is changed in it is noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_trainer.data.buckets import Placement
from lora_trainer.data.latent_files import as_tensors, latent_path, read_latents
from lora_trainer.data.survey import Sample
from lora_trainer.data.tensor_file import write_tensors

SAMPLE = Sample("1_a/p.png", Path("p.png"), "1_a", 1, "cat", (40, 24), "abc", Placement((32, 16), (40, 24), (4, 4)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_round_trip_and_equal_bytes(tmp_path: Path, dtype: torch.dtype) -> None:
    latents = torch.randn(2, 2, 4, 3, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    write_tensors(tmp_path / "ä 1", as_tensors(latents))
    write_tensors(tmp_path / "ä 2", as_tensors(latents.transpose(0, 1).contiguous().transpose(0, 1)))
    read = read_latents(tmp_path / "ä 1")
    assert read is not None
    assert read.dtype == dtype
    assert torch.equal(read, latents)
    assert (tmp_path / "ä 1").read_bytes() == (tmp_path / "ä 2").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ä 1", "ä 2"]


def test_every_changed_byte_and_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    latents = torch.arange(16.0).reshape(1, 2, 4, 1, 2) / 7
    write_tensors(path, as_tensors(latents))
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bit in (1, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            read = read_latents(path)
            assert read is None or (torch.equal(read, latents) and at < len(whole) - 64), (at, bit)
        path.write_bytes(whole[:at])
        assert read_latents(path) is None
    path.write_bytes(whole)
    assert read_latents(path) is not None
    assert read_latents(tmp_path / "missing") is None


def test_not_finite_is_not_accepted(tmp_path: Path) -> None:
    for bad in (float("nan"), float("inf")):
        write_tensors(tmp_path / "x", as_tensors(torch.tensor([[1.0, bad]])))
        assert read_latents(tmp_path / "x") is None


def test_the_name_is_of_content_placement_and_settings_only(tmp_path: Path) -> None:
    path = latent_path(tmp_path, SAMPLE, True, torch.float16, "vae")
    moved = replace(SAMPLE, name="2_b/q.png", path=Path("q.png"), folder="2_b", repeats=5, caption="dog")
    assert latent_path(tmp_path, moved, True, torch.float16, "vae") == path
    others = {
        latent_path(tmp_path, replace(SAMPLE, digest="abd"), True, torch.float16, "vae"),
        latent_path(
            tmp_path, replace(SAMPLE, placement=Placement((32, 16), (40, 24), (4, 3))), True, torch.float16, "vae"
        ),
        latent_path(tmp_path, SAMPLE, False, torch.float16, "vae"),
        latent_path(tmp_path, SAMPLE, True, torch.float32, "vae"),
        latent_path(tmp_path, SAMPLE, True, torch.float16, "other vae"),
    }
    assert len(others | {path}) == 6


def test_a_picture_with_a_mask_in_itself_is_encoded_apart(tmp_path: Path) -> None:
    paths = {latent_path(tmp_path, replace(SAMPLE, alpha_mask=own), True, "vae") for own in (False, True)}
    assert len(paths) == 2
