"""The bench of looking and encoding: its pictures, that both ways encode the same, and the table."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.folders import Picture
from lora_trainer.data.survey import survey
from lora_trainer.trainers.diffusion.objective import encode
from lora_trainer.user_cache import CACHE_FOLDER
from tools.bench_cache import (
    Setting,
    Way,
    encodings,
    in_turn,
    main,
    random_vae,
    rows_of,
    script_encode,
    surveys,
    vae_alone,
    write_pictures,
)

BUCKETS = BucketSettings((64, 64), 32, 256, 32)


def test_the_pictures_are_of_both_kinds_in_three_shapes_and_all_different(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "ü", 12, 128)
    found = survey(pictures, BUCKETS)
    assert {sample.size_px for sample in found} == {(128, 128), (96, 128), (128, 96)}
    assert {(sample.path.suffix, sample.size_px) for sample in found} == {
        (suffix, size) for suffix in (".jpg", ".png") for size in ((128, 128), (96, 128), (128, 96))
    }
    assert len({sample.digest for sample in found}) == 12


def test_the_script_and_the_cache_encode_the_same(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.new("RGB", (128, 128), (90, 120, 200)).save(path)  # of one colour, as the two resize in different ways
    samples = survey([Picture(path, path.name, "a", 1, "")], BUCKETS)
    vae = random_vae("tiny", torch.float32, torch.device("cpu"))
    script_encode(samples, vae, tmp_path / "script")
    latents = torch.from_numpy(np.load(tmp_path / "script" / "0.npz")["latents"])
    setting = Setting(tmp_path, [Picture(path, path.name, "a", 1, "")], BUCKETS, 2)
    cached = encodings(setting, vae, 4)["cache"].run()
    mean, std = cached.get(0)  # type: ignore[attr-defined]
    assert mean.shape == latents.shape == (4, 8, 8)
    assert ((latents - mean).abs() <= 6 * std).all()
    assert (latents != mean).any()


def test_the_vae_alone_gets_as_many_pictures_in_the_same_batches(tmp_path: Path) -> None:
    vae = random_vae("tiny", torch.float32, torch.device("cpu"))
    samples = survey(write_pictures(tmp_path / "p", 8, 128), BUCKETS)
    shapes: list[tuple[int, ...]] = []

    class Counted:
        device, dtype = vae.device, vae.dtype

        def encode(self, pixels: torch.Tensor) -> object:
            shapes.append(tuple(pixels.shape))
            return vae.encode(pixels)

    vae_alone(samples, Counted(), 2)
    alone, shapes[:] = sorted(shapes), []
    setting = Setting(tmp_path, [Picture(sample.path, sample.name, "a", 1, "") for sample in samples], BUCKETS, 2)
    ways = encodings(setting, Counted(), 2)
    ways["cache"].run()
    assert sorted(shapes) == alone
    assert sum(shape[0] for shape in alone) == 8
    ways["cache, a second time"].run()
    assert len(shapes) == len(alone)
    assert encode(vae, torch.zeros(1, 3, 64, 64))[0].shape == (1, 4, 8, 8)


def test_ways_take_turns_and_are_made_ready_each_time(tmp_path: Path) -> None:
    heard: list[str] = []
    ways = {
        "a": Way(lambda: heard.append("a"), lambda: heard.append("ready")),
        "b": Way(lambda: heard.append("b")),
    }
    found = in_turn(ways, 2)
    assert heard == ["ready", "a", "b"] * 2
    assert [len(seconds) for seconds in found.values()] == [2, 2]


def test_surveys_forget_or_remember(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(tmp_path, write_pictures(tmp_path / "p", 3, 128), BUCKETS, 2)
    monkeypatch.setenv(CACHE_FOLDER, str(setting.memory))
    ways = surveys(setting)
    assert ways["script, sizes only"].run() == [(128, 128), (96, 128), (128, 96)]
    results = []
    for name in ("headers", "every picture decoded", "a second time"):
        ways[name].ready()
        assert setting.memory.exists() == (name == "a second time")
        results.append(ways[name].run())
    assert results[0] == results[1] == results[2]


def test_the_arithmetic_of_a_row() -> None:
    slow, fast = rows_of("looking", {"slow": [2.0, 4.0, 9.0], "fast": [1.0, 0.5, 2.0]}, 200)
    assert (slow["seconds"], slow["seconds_per_1000"], slow["pictures_per_second"], slow["times"]) == (4, 20, 50, 1)
    assert (fast["seconds"], fast["least"], fast["most"], fast["times"]) == (1.0, 0.5, 2.0, 4.0)


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_FOLDER, "undone after the test")
    assert main(["--pictures", "6", "--side", "128", "--rounds", "1", "--precision", "no"]) == 0
    assert not Path(os.environ[CACHE_FOLDER]).exists()  # a temporary folder
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [row["way"] for row in rows] == [
        "script, sizes only", "headers", "every picture decoded", "a second time",
        "script", "cache", "cache, a second time", "the VAE alone",
    ]  # fmt: skip
    assert all(row["pictures"] == 6 and row["seconds"] > 0 for row in rows)
    assert lines[4] == "looking, 6 pictures"
    assert lines[-6] == "encoding, tiny VAE, 6 pictures"
    assert lines[-1].startswith("the VAE alone")
