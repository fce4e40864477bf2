"""Encoded captions in memory and on disk: encoded once, shared between processes, made anew when broken."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_trainer.data.latent_cache import Team
from lora_trainer.data.text_cache import TextCache, TextSettings
from lora_trainer.errors import Refusal

CAPTIONS = ("a cat", "", "ein Hündchen", "a cat")


class Encoder:
    """Tensors that follow from the letters; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, caption: str) -> Mapping[str, Tensor]:
        self.asked.append(caption)
        numbers = torch.tensor([float(ord(letter)) for letter in f"{caption:<12}"])
        return {"text_hidden": numbers.view(4, 3), "text_pooled": numbers[:2]}


def assert_right(cache: TextCache) -> None:
    batch = cache.batch(["ein Hündchen", "a cat"])
    expected = [Encoder()("ein Hündchen"), Encoder()("a cat")]
    assert set(batch) == {"text_hidden", "text_pooled"}
    for name, found in batch.items():
        assert torch.equal(found, torch.stack([one[name] for one in expected]))


@pytest.mark.parametrize("on_disk", [False, True])
def test_each_caption_is_encoded_once(tmp_path: Path, on_disk: bool) -> None:
    encoder = Encoder()
    cache = TextCache.build(CAPTIONS, encoder, TextSettings("sdxl", tmp_path if on_disk else None))
    assert encoder.asked == ["a cat", "", "ein Hündchen"]
    assert_right(cache)
    assert_right(pickle.loads(pickle.dumps(cache)))  # a loader process gets it so
    assert len(list(tmp_path.iterdir())) == (3 if on_disk else 0)
    with pytest.raises(KeyError):
        cache.batch(["another"])


def test_files_serve_the_next_run_unless_something_changed(tmp_path: Path) -> None:
    TextCache.build(CAPTIONS, Encoder(), TextSettings("sdxl", tmp_path))
    again, other = Encoder(), Encoder()
    assert_right(TextCache.build(CAPTIONS, again, TextSettings("sdxl", tmp_path)))
    assert again.asked == []
    TextCache.build((*CAPTIONS, "new"), again, TextSettings("sdxl", tmp_path))
    assert again.asked == ["new"]
    TextCache.build(CAPTIONS, other, TextSettings("other weights", tmp_path))
    assert len(other.asked) == 3


def test_a_broken_file_is_made_anew_and_later_refused(tmp_path: Path) -> None:
    TextCache.build(("a cat",), Encoder(), TextSettings("sdxl", tmp_path))
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    for bad in (good[:-3], b"", bytes([*good[:-1], good[-1] ^ 1])):
        file.write_bytes(bad)
        encoder = Encoder()
        cache = TextCache.build(("a cat",), encoder, TextSettings("sdxl", tmp_path))
        assert encoder.asked == ["a cat"]
        assert file.read_bytes() == good
    file.unlink()
    with pytest.raises(Refusal, match="damaged or removed during the run"):
        cache.batch(["a cat"])


def test_numbers_that_are_not_finite_are_refused_by_caption() -> None:
    def encode(caption: str) -> Mapping[str, Tensor]:
        return {"text_hidden": torch.full((2,), float("nan") if caption == "bad" else 1.0)}

    with pytest.raises(Refusal, match='"bad": the text encoders make NaN'):
        TextCache.build(("good", "bad"), encode, TextSettings("sdxl"))


@pytest.mark.parametrize("on_disk", [False, True])
def test_processes_share_the_work(tmp_path: Path, on_disk: bool) -> None:
    settings = TextSettings("sdxl", tmp_path if on_disk else None)
    told: dict[int, list[Any]] = {}

    def listen(rank: int) -> Team:
        def exchange(items: list[Any]) -> list[Any]:
            told[rank] = items
            return items if rank == 1 else [*items, *told[1]]

        return Team(rank, 2, exchange)

    first, second = Encoder(), Encoder()
    with pytest.raises(KeyError) if not on_disk else pytest.raises(Refusal, match="other processes wrote"):
        TextCache.build(CAPTIONS, second, settings, listen(1))  # it has only its own part
    assert second.asked == [""]
    assert_right(TextCache.build(CAPTIONS, first, settings, listen(0)))
    assert first.asked == ["a cat", "ein Hündchen"]


def test_a_problem_of_another_process_is_everyones() -> None:
    def exchange(items: list[Any]) -> list[Any]:
        return [*items, ({}, ("the disk is full",))]

    with pytest.raises(Refusal, match="the disk is full"):
        TextCache.build(CAPTIONS, Encoder(), TextSettings("sdxl"), Team(0, 2, exchange))
