"""The cache of latents: right numbers, nothing encoded twice, damage repaired, work shared, problems named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.folders import read_folders
from lora_trainer.data.latent_cache import LatentCache, LatentSettings, Team
from lora_trainer.data.latent_encoding import read_pixels
from lora_trainer.data.survey import Sample, survey
from lora_trainer.errors import Refusal


class Encoder:
    """A VAE's shape in one convolution: 8 pixels to one latent, 4 means and 4 standard deviations."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(3, 8, 8, stride=8)
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert pixels.dtype == torch.float32
        self.batches.append(tuple(pixels.shape))
        mean, log_std = self.convolution(pixels).chunk(2, dim=1)
        return mean, log_std.exp()


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Sample, ...]:
    folder = tmp_path / "Bilder ü" / "2_a"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number, (height, width) in enumerate([(40, 64), (64, 40), (40, 64), (40, 64), (64, 64), (64, 40)]):
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return survey(read_folders(folder.parent, ".txt"), BucketSettings((64, 64), step_px=32))


def encode_one(encoder: Encoder, sample: Sample, mirrored: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = read_pixels(sample)[None]
    with torch.no_grad():
        mean, std = encoder(pixels.flip(-1) if mirrored else pixels)
    return mean[0], std[0]


def all_latents(cache: LatentCache, count: int, versions: int) -> torch.Tensor:
    return torch.cat([torch.stack(cache.get(i, bool(v))).flatten() for i in range(count) for v in range(versions)])


def test_pixels_are_placed_and_between_minus_one_and_one(samples: tuple[Sample, ...]) -> None:
    pixels = read_pixels(samples[0])
    assert pixels.shape == (3, 32, 64)
    with Image.open(samples[0].path) as image:
        expected = np.asarray(image)[4:36].astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(pixels.permute(1, 2, 0).numpy(), expected, atol=1e-6)
    assert -1 <= pixels.min() < -0.9 < 0.9 < pixels.max() <= 1


@pytest.mark.parametrize("on_disk", [False, True])
def test_mean_and_deviation_of_both_versions(samples: tuple[Sample, ...], tmp_path: Path, on_disk: bool) -> None:
    encoder = Encoder()
    settings = LatentSettings("vae", mirrored=True, batch_size=2, folder=tmp_path / "caché" if on_disk else None)
    heard: list[tuple[int, int]] = []
    cache = LatentCache.build(samples, encoder, settings, on_progress=lambda *numbers: heard.append(numbers))

    assert sorted(shape[0] for shape in encoder.batches) == [1, 1, 1, 1, 2, 2, 2, 2]
    assert heard == [(0, 6), (2, 6), (3, 6), (5, 6), (6, 6)]
    for index, sample in enumerate(samples):
        for mirrored in (False, True):
            mean, std = cache.get(index, mirrored)
            height, width = sample.placement.bucket_px
            assert mean.shape == std.shape == (4, height // 8, width // 8)
            expected = encode_one(encoder, sample, mirrored)
            torch.testing.assert_close((mean, std), expected, rtol=1e-5, atol=1e-6)


def test_dtype_is_kept(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    for folder in (None, tmp_path / "c"):
        cache = LatentCache.build(samples, Encoder(), LatentSettings("vae", dtype=torch.bfloat16, folder=folder))
        assert {tensor.dtype for tensor in cache.get(4)} == {torch.bfloat16}


def test_a_second_run_encodes_only_what_is_new_or_damaged(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    settings = LatentSettings("vae", batch_size=2, folder=tmp_path / "cache")
    first = all_latents(LatentCache.build(samples, Encoder(), settings), 6, 1)
    files = sorted((tmp_path / "cache").iterdir())
    bytes_before = [file.read_bytes() for file in files]
    assert len(files) == 6

    again = Encoder()
    heard: list[tuple[int, int]] = []
    LatentCache.build(samples, again, settings, on_progress=lambda *numbers: heard.append(numbers))
    assert again.batches == []
    assert heard == [(6, 6)]

    flipped = bytearray(bytes_before[0])
    flipped[-5] ^= 1
    files[0].write_bytes(flipped)
    files[3].write_bytes(bytes_before[3][:-10])
    files[5].unlink()
    repaired = LatentCache.build(samples, Encoder(), settings)
    assert torch.equal(all_latents(repaired, 6, 1), first)
    assert [file.read_bytes() for file in files] == bytes_before


def test_a_changed_picture_or_vae_is_encoded_anew(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    settings = LatentSettings("vae", folder=tmp_path / "cache")
    LatentCache.build(samples, Encoder(), settings)
    Image.new("RGB", (64, 64), "red").save(samples[4].path)
    changed = survey(read_folders(samples[4].path.parents[1], ".txt"), BucketSettings((64, 64), step_px=32))
    encoder = Encoder()
    LatentCache.build(changed, encoder, settings)
    assert encoder.batches == [(1, 3, 64, 64)]
    LatentCache.build(changed, encoder, replace(settings, identity="vae in half precision"))
    assert len(encoder.batches) == 7


def test_damage_during_the_run_is_a_message(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    cache = LatentCache.build(samples, Encoder(), LatentSettings("vae", folder=tmp_path / "cache"))
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"")
    with pytest.raises(Refusal, match="damaged or removed during the run; start again to make it anew"):
        cache.get(2)


@pytest.mark.parametrize("on_disk", [False, True])
def test_numbers_that_are_not_finite_name_the_picture_and_the_cure(
    samples: tuple[Sample, ...], tmp_path: Path, on_disk: bool
) -> None:
    encoder = Encoder()

    def overflowing(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, std = encoder(pixels)
        mean[1] *= torch.inf
        return mean, std

    settings = LatentSettings("vae", batch_size=2, folder=tmp_path / "cache" if on_disk else None)
    with pytest.raises(Refusal) as caught:
        LatentCache.build(samples, overflowing, settings)
    assert caught.value.problems == (
        f"{samples[2].path}: the VAE makes NaN or infinity of this picture; set sdxl_no_half_vae to true, "
        "or use a VAE that was made for half precision",
    )
    assert not on_disk or list((tmp_path / "cache").iterdir()) == []


def test_a_picture_that_went_bad_after_the_survey(samples: tuple[Sample, ...]) -> None:
    samples[3].path.write_bytes(b"")
    with pytest.raises(Refusal) as caught:
        LatentCache.build(samples, Encoder(), LatentSettings("vae"))
    assert caught.value.problems == (f"{samples[3].path}: the file is empty",)


def test_all_broken_pictures_are_named_and_what_was_encoded_stays(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    settings, encoder = LatentSettings("vae", folder=tmp_path / "cache"), Encoder()
    for index in (2, 5):  # the first bucket has 0, 2 and 3, the second 1 and 5, the third 4
        samples[index].path.write_bytes(b"")
    with pytest.raises(Refusal) as caught:
        LatentCache.build(samples, encoder, settings)
    assert caught.value.problems == tuple(f"{samples[index].path}: the file is empty" for index in (2, 5))
    assert len(encoder.batches) == len(list((tmp_path / "cache").iterdir())) == 1
    again = Encoder()
    LatentCache.build([samples[index] for index in (0, 1, 3, 4)], again, settings)
    assert len(again.batches) == 3


def test_a_long_list_of_broken_pictures_is_cut(samples: tuple[Sample, ...]) -> None:
    samples[0].path.write_bytes(b"")

    def build(team: Team) -> tuple[str, ...]:
        with pytest.raises(Refusal) as caught:
            LatentCache.build([samples[0]] * 23, Encoder(), LatentSettings("vae", batch_size=2), team)
        return caught.value.problems

    for problems in built_together(2, build):
        assert problems == (*[f"{samples[0].path}: the file is empty"] * 20, "... and 3 more pictures")


def test_a_picture_that_lies_there_twice_is_written_once(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    settings = LatentSettings("vae", folder=tmp_path / "cache")
    cache = LatentCache.build([samples[0]] * 12, Encoder(), settings)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert all(torch.equal(cache.get(0)[0], cache.get(index)[0]) for index in range(12))


def test_a_folder_that_cannot_be_written_is_a_message(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    encoder = Encoder()

    def unwritable(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if (tmp_path / "cache").is_dir():
            (tmp_path / "cache").rmdir()
        return encoder(pixels)

    with pytest.raises(Refusal, match=r"cache: cannot write the latents \(No such file.*; free some space"):
        LatentCache.build(samples, unwritable, LatentSettings("vae", folder=tmp_path / "cache"))


def test_a_cache_folder_that_is_a_file_is_a_message(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(Refusal, match=r"cache: cannot write the latents \("):
        LatentCache.build(samples, Encoder(), LatentSettings("vae", folder=tmp_path / "cache"))


def together(world: int) -> list[Team]:
    """Teams for threads: their exchange waits for all of them, as an all-gather does."""
    lists: list[list[Any]] = [[] for _ in range(world)]
    barrier = threading.Barrier(world, timeout=30)

    def exchange_of(rank: int) -> Callable[[list[Any]], list[Any]]:
        def exchange(mine: list[Any]) -> list[Any]:
            lists[rank] = mine
            barrier.wait()
            return [item for one in lists for item in one]

        return exchange

    return [Team(rank, world, exchange_of(rank)) for rank in range(world)]


def built_together(world: int, build: Callable[[Team], Any]) -> Iterator[Any]:
    with ThreadPoolExecutor(world) as pool:
        yield from [future.result() for future in [pool.submit(build, team) for team in together(world)]]


@pytest.mark.parametrize("on_disk", [False, True])
def test_processes_share_the_work_and_get_the_same_bits(
    samples: tuple[Sample, ...], tmp_path: Path, on_disk: bool
) -> None:
    alone = LatentCache.build(samples, Encoder(), LatentSettings("vae", mirrored=True, batch_size=2))
    settings = LatentSettings("vae", mirrored=True, batch_size=2, folder=tmp_path / "c" if on_disk else None)
    encoders = [Encoder() for _ in range(3)]
    caches = list(built_together(3, lambda team: LatentCache.build(samples, encoders[team.rank], settings, team)))
    assert [len(encoder.batches) for encoder in encoders] == [4, 2, 2]  # four batches, each of two versions
    for cache in caches:
        assert torch.equal(all_latents(cache, 6, 2), all_latents(alone, 6, 2))


def test_every_process_hears_of_a_problem(samples: tuple[Sample, ...]) -> None:
    samples[0].path.write_bytes(b"")

    def build(team: Team) -> tuple[str, ...]:
        with pytest.raises(Refusal) as caught:
            LatentCache.build(samples, Encoder(), LatentSettings("vae"), team)
        return caught.value.problems

    assert list(built_together(2, build)) == [(f"{samples[0].path}: the file is empty",)] * 2


def test_only_the_numbers_themselves_are_sent(samples: tuple[Sample, ...]) -> None:
    sent: list[tuple[int, int]] = []

    def exchange(mine: list[Any]) -> list[Any]:
        sent.extend((one.untyped_storage().nbytes(), one.nbytes) for latents, _ in mine for one in latents.values())
        return list(mine)

    LatentCache.build(samples, Encoder(), LatentSettings("vae", batch_size=4), Team(exchange=exchange))
    assert len(sent) == 6
    assert all(stored == needed for stored, needed in sent)


def test_a_cache_folder_that_is_not_shared_is_a_message(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    def build(team: Team) -> tuple[str, ...]:
        settings = LatentSettings("vae", folder=tmp_path / f"machine {team.rank}")
        with pytest.raises(Refusal) as caught:
            LatentCache.build(samples, Encoder(), settings, team)
        return caught.value.problems

    for problems in built_together(2, build):
        assert "3 of 6 files that other processes wrote are not here" in problems[0]


def test_a_spawned_process_shares_the_memory(samples: tuple[Sample, ...]) -> None:
    cache = LatentCache.build(samples, Encoder(), LatentSettings("vae"))
    before = cache.get(0)[0].clone()
    context = torch.multiprocessing.get_context("spawn")
    process = context.Process(target=zero, args=(cache,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert before.abs().sum() > 0
    assert cache.get(0)[0].abs().sum() == 0


def zero(cache: LatentCache) -> None:
    cache.get(0)[0].zero_()
