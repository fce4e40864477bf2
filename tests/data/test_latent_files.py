"""A latent file proves itself: whatever is changed in it is noticed."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_trainer.data import latent_files
from lora_trainer.data.buckets import Placement
from lora_trainer.data.latent_files import latent_path, read_latents, write_latents, writing_behind
from lora_trainer.data.survey import Sample

SAMPLE = Sample("1_a/p.png", Path("p.png"), "1_a", 1, "cat", (40, 24), "abc", Placement((32, 16), (40, 24), (4, 4)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_round_trip_and_equal_bytes(tmp_path: Path, dtype: torch.dtype) -> None:
    latents = torch.randn(2, 2, 4, 3, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    write_latents(tmp_path / "ä 1", latents)
    write_latents(tmp_path / "ä 2", latents.transpose(0, 1).contiguous().transpose(0, 1))
    read = read_latents(tmp_path / "ä 1")
    assert read is not None
    assert read.dtype == dtype
    assert torch.equal(read, latents)
    assert (tmp_path / "ä 1").read_bytes() == (tmp_path / "ä 2").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ä 1", "ä 2"]


def test_every_changed_byte_and_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    latents = torch.arange(16.0).reshape(1, 2, 4, 1, 2) / 7
    write_latents(path, latents)
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
        write_latents(tmp_path / "x", torch.tensor([[1.0, bad]]))
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


def test_files_are_written_behind_and_all_of_them_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, written = threading.Semaphore(0), []

    def slow(path: Path, latents: torch.Tensor) -> None:
        assert may_write.acquire(timeout=30)
        write_latents(path, latents)
        written.append(path.name)

    monkeypatch.setattr(latent_files, "write_latents", slow)
    with writing_behind(3) as write:
        for number in range(3):
            write(tmp_path / str(number), torch.full((2,), float(number)))
        assert written == []  # nobody waited
        late = threading.Thread(target=write, args=(tmp_path / "3", torch.full((2,), 3.0)))
        late.start()
        late.join(0.2)
        assert late.is_alive()  # as three wait already
        may_write.release(10)
        late.join(30)
        assert not late.is_alive()
        write(tmp_path / "0", torch.full((2,), 9.0))  # the first to come counts
    assert sorted(written) == ["0", "1", "2", "3"]
    for number in range(4):
        assert read_latents(tmp_path / str(number)).tolist() == [number] * 2  # type: ignore[union-attr]


def test_what_cannot_be_written_behind_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing_behind(8) as write:
        write(tmp_path / "there is no folder" / "a", torch.zeros(2))
        write(tmp_path / "b", torch.zeros(2))
    assert read_latents(tmp_path / "b") is not None


def test_what_was_given_is_written_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another problem"), writing_behind(8) as write:
        write(tmp_path / "a", torch.zeros(2))
        write(tmp_path / "there is no folder" / "b", torch.zeros(2))
        raise ValueError("another problem")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
