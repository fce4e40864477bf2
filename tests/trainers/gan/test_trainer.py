"""The GAN trainer from preset to snapshot: files, exact continuation, any sharing of a batch, transfer, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lora_trainer.engine.loop import Loop
from lora_trainer.models.gan.snapshot import read_snapshot
from lora_trainer.models.gan.table import build_discriminator, build_generator
from lora_trainer.trainers.gan import sheets
from tests.trainers.gan.run import tiny, write_images
from tests.trainers.waiting import stop_after

REPOSITORY = Path(__file__).parents[3]
LAST = "network-snapshot-000000.safetensors"

Train = Callable[..., int]
Write = Callable[..., Path]
Rows = Callable[[], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("bilder ü") / "shapes.zip")


@pytest.fixture
def write(tmp_path: Path, data: Path) -> Write:
    """`write(key=value, ...)` writes a preset that trains in a second, into `out`."""

    def made(**keys: Any) -> Path:
        path = tmp_path / "preset.json"
        path.write_text(json.dumps(tiny(tmp_path / "out put", data, **keys)), encoding="utf-8")
        return path

    return made


@pytest.fixture(autouse=True)
def small_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MOST", 4)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_run_leaves_what_users_of_the_field_look_for(
    train: Train, write: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write(batch=40, kimg=1.04, tick=0.52, snap=1, log_with="tensorboard", mirror=True)
    assert train(preset) == 0
    assert {"reals.png", "fakes_init.png", "fakes000000.png", "fakes000001.png", "log.txt"} <= {
        path.name for path in out.iterdir()
    }
    assert sorted(out.glob("*.safetensors")) == [out / LAST, out / "network-snapshot-000001.safetensors"]
    with Image.open(out / "fakes000001.png") as fakes, Image.open(out / "reals.png") as reals:
        assert fakes.size == reals.size == (4 * 16, 4 * 16)
        assert np.asarray(reals)[:16, :16].max() > 130
    stats = lines(out / "stats.jsonl")
    assert [row["step"] for row in stats] == [13, 26]
    assert stats[1]["Progress/kimg"]["mean"] == pytest.approx(1.04)
    assert stats[0]["Loss/D/loss"]["num"] == stats[0]["Loss/G/loss"]["num"] == 520
    assert stats[0]["Loss/scores/fake"]["num"] == 1040  # seen by both phases
    assert stats[0]["Loss/r1_penalty"]["num"] == 40
    assert stats[0]["Loss/pl_penalty"]["num"] == 80  # half of four batches
    assert stats[1]["Timing/sec_per_kimg"]["mean"] > 0
    text = (out / "log.txt").read_text(encoding="utf-8")
    for word in ("48 images of 16 px", "tick 2", "sec/kimg", "maintenance", "gpumem", "augment 0.0", "finished: "):
        assert word in text, word
    assert "tick 1 " in capsys.readouterr().out
    options = json.loads((out / "training_options.json").read_text(encoding="utf-8"))
    assert (options["preset"]["cfg"], options["run"]["data"]["images"]) == ("stylegan2", 48)
    events = EventAccumulator(str(out / "logs" / "network-snapshot")).Reload()
    assert {"Loss/G/loss", "Progress/augment", "Timing/sec_per_kimg", "D/loss"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["fakes"]


def test_a_snapshot_holds_what_builds_its_networks_again(train: Train, write: Write, out: Path) -> None:
    assert train(write()) == 0
    snapshot = read_snapshot(out / LAST)
    options = snapshot.options
    assert (snapshot.cfg, options["kimg"], options["map_depth"]) == ("stylegan2", 0.08, 1)
    generator = build_generator(snapshot.cfg, snapshot.size, map_depth=options["map_depth"])
    generator.load_state_dict(snapshot.networks["G_ema"])
    discriminator = build_discriminator(snapshot.size, mbstd_group=options["mbstd_group"])
    discriminator.load_state_dict(snapshot.networks["D"])
    images = generator(torch.randn(4, 512))
    assert discriminator(images).shape == (4, 1)
    assert not torch.equal(
        snapshot.networks["G"]["mapping.fc0.weight"], snapshot.networks["G_ema"]["mapping.fc0.weight"]
    )


CONFIGS: dict[str, dict[str, Any]] = {
    "ada": {"cond": True},
    "fixed": {"cfg": "creps", "aug": "fixed", "p": 0.9},
    "r3gan": {"cfg": "r3gan", "cbase": 128, "map_depth": None, "aug": "fixed", "p": 0.9, "decay_kimg": 0.05},
    "blurred": {"cfg": "stylegan3-r", "gamma": 1, "kimg": 0.048},
}


@pytest.mark.parametrize(
    "name",
    [
        "ada",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("r3gan", "fixed")),
        pytest.param("blurred", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_and_continued_run_writes_the_bytes_of_an_undisturbed_one(
    train: Train, write: Write, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It stops between two updates of the augmentation, of the tick and of the penalties."""
    keys = CONFIGS[name]
    whole = tmp_path / "whole"
    assert train(write(output_dir=str(whole), **keys)) == 0
    preset = write(**keys)
    stop_after(monkeypatch, 3)
    assert train(preset) == 143
    assert not (out / LAST).exists()
    assert train(preset) == 0
    for file in (LAST, "fakes000000.png", "fakes_init.png", "reals.png"):
        assert (out / file).read_bytes() == (whole / file).read_bytes(), file
    first, second = lines(whole / "stats.jsonl"), lines(out / "stats.jsonl")
    assert len(first) == len(second)
    for ours, theirs in zip(first, second, strict=True):
        told = [key for key in ours if key.startswith(("Loss", "Progress"))]
        assert {key: ours[key] for key in told} == {key: theirs[key] for key in told}
    assert name != "ada" or first[-1]["Progress/augment"]["mean"] > 0


def test_a_run_that_had_ended_goes_on_for_more_kimg(
    train: Train, write: Write, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when it is killed before its first checkpoint. Rows are in the order of steps, a tick's after the losses."""
    assert train(write(output_dir=str(tmp_path / "whole"), kimg=0.064)) == 0
    assert train(write(kimg=0.04)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", lambda *_: 1 / 0)
        patch.setattr(Loop, "_rescue", lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            train(write(kimg=0.064))
    assert train(write(kimg=0.064)) == 0
    assert (out / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()
    rows = lines(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 8]
    assert [row["step"] for row in rows if "Progress/tick" in row] == [5, 8]
    assert "Progress/tick" in rows[-1]


def differences(one: Path, other: Path) -> float:
    """The largest between the weights, in units of how large each tensor is."""
    first, second = load_file(one / LAST), load_file(other / LAST)
    assert first.keys() == second.keys()
    return max(
        float((first[name].float() - second[name].float()).abs().max() / first[name].float().abs().max().clamp(min=1))
        for name in first
    )


def test_two_passes_train_what_one_does(train: Train, write: Write, tmp_path: Path) -> None:
    keys = {"cond": True, "aug": "fixed", "p": 0.5, "kimg": 0.048}
    one, two = tmp_path / "one", tmp_path / "two"
    assert train(write(output_dir=str(one), **keys)) == 0
    assert train(write(output_dir=str(two), batch_gpu=4, **keys)) == 0
    assert 0 < differences(one, two) < 1e-5
    for ours, theirs in zip(lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl"), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() & {"loss", "D/loss", "G_reg/loss", "D_reg/loss"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), (ours["step"], name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "apart"), [({"cond": True}, 1e-5), ({"cfg": "stylegan3-t", "gamma": 1, "kimg": 0.032}, 2e-3)]
)
def test_two_processes_train_what_one_does(
    train: Train, write: Write, tmp_path: Path, keys: dict[str, Any], apart: float
) -> None:
    """With metrics, which they share too.

    Adam's first steps are as long as the rate however small a gradient is. StyleGAN3 has some that are zero but for
    rounding, so its losses agree far better than those weights.
    """
    keys = {"kimg": 0.048, **keys, "metrics": "fid50k_full", "inception": "stand-in", "metric_images": 24}
    one, two = tmp_path / "one", tmp_path / "two"
    assert train(write(output_dir=str(one), **keys)) == 0
    preset = write(output_dir=str(two), **keys)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    command += ["-m", "lora_trainer", "--preset", str(preset)]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, timeout=300)
    assert differences(one, two) < apart
    for ours, theirs in zip(lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl"), strict=True):
        for name in ours.keys() & {"loss", "D/loss", "G_reg/loss", "D_reg/loss"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), (ours["step"], name)
    (first,), (second,) = (list(folder.glob("metric-*.jsonl")) for folder in (one, two))
    for ours, theirs in zip(lines(first), lines(second), strict=True):
        assert list(ours["results"].values()) == pytest.approx(list(theirs["results"].values()), rel=1e-3)


def test_a_snapshot_is_taken_over_with_frozen_layers(
    train: Train, write: Write, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write(output_dir=str(tmp_path / "first"))) == 0
    source = tmp_path / "first" / LAST
    assert train(write(resume=str(source), freezed=4, kimg=0.016)) == 0
    text = capsys.readouterr().out
    assert f"{source}: G_ema: " in text
    assert "tensors taken, 0 missing, 0 of another shape" in text
    first, second = (tmp_path / "first" / "fakes000000.png", out / "fakes_init.png")
    assert first.read_bytes() == second.read_bytes()  # the averaged generator is where it was
    before, after = load_file(source), load_file(out / LAST)
    frozen = [f"D.b16.{layer}.weight" for layer in ("fromrgb", "conv0", "conv1", "skip")]
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["D.b8.conv0.weight"], after["D.b8.conv0.weight"])


def test_a_snapshot_of_another_kind_or_size_is_refused(
    train: Train, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write(output_dir=str(tmp_path / "first"), kimg=0.008)) == 0
    source = str(tmp_path / "first" / LAST)
    capsys.readouterr()
    assert train(write(resume=source, cfg="creps")) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the snapshot is of stylegan2, and the preset says cfg creps; write stylegan2" in said
    assert train(write(resume=source, cmax=16, cbase=256)) == 2
    assert "too little of it fits the network of this preset" in " ".join(capsys.readouterr().err.split())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "gamma": ({"gamma": None}, "gamma: missing; write it, for example 0.0064, the usual value of stylegan2 at 16 px"),
    "groups": ({"batch": 6}, "6 images, which pass at a time"),
    "passes": (
        {"batch_gpu": 3, "batch": 8, "mbstd_group": 1},
        "batch_gpu: 3 at a time do not make up the 8 images of the one process; write one of 1, 2, 4, 8",
    ),
    "freezed": ({"freezed": 8}, "freezed: found 8; the discriminator of 16 px has 7 layers that can be frozen"),
    "metrics": ({"metrics": "fid50k_fu"}, "there is no metric fid50k_fu"),
    "inception": ({"metrics": "fid50k_full", "inception": "nowhere.pt"}, "inception: there is no file nowhere.pt"),
    "data": ({"data": "no where.zip"}, "data: no where.zip: there is no such file or folder; correct the path"),
    "resume": ({"resume": "gone.pkl"}, "resume: gone.pkl: there is no such snapshot"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_told_before_it_begins(
    train: Train, write: Write, out: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    keys, sentence = REFUSED[case]
    assert train(write(**keys)) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_labels_are_needed_for_classes(
    train: Train, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_images(tmp_path / "plain.zip", labels=False)
    assert train(write(data=str(plain), cond=True)) == 2
    assert "plain.zip: cond needs labels, but there is no dataset.json" in " ".join(capsys.readouterr().err.split())


def test_a_dry_run_tells_the_plan_and_writes_a_page_about_the_images(
    train: Train, write: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write(), "--dry-run") == 0
    text = capsys.readouterr().out
    for word in ("G, G_reg, D, D_reg", "24 images of 16 px", "rate of G", "adaptive, target 0.6", LAST):
        assert word in text, word
    assert text.count("rate of G") == 1
    assert [path.name for path in out.iterdir()] == ["dataset.html"]


EXAMPLE = REPOSITORY / "presets" / "gan" / "example.json"


def test_the_example_can_be_planned(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert train(EXAMPLE, "--dry-run") == 0
    text = capsys.readouterr().out
    for word in ("1700 gray images of 32 px, 10 classes", "R1 0.3 to 0.03", "network-snapshot-000010.safetensors"):
        assert word in " ".join(text.split()), word


@pytest.mark.slow
def test_the_example_learns_to_write(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert train(EXAMPLE, "--set", f"output_dir={tmp_path}") == 0
    found = [row["results"]["fid1k_full_standin"] for row in lines(tmp_path / "metric-fid1k_full_standin.jsonl")]
    assert len(found) == 5
    assert found[-1] < 0.2 < 0.5 < found[0]


def test_other_data_are_another_run(
    train: Train, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_after(monkeypatch, 2)
    assert train(write()) == 143
    fewer = write_images(tmp_path / "fewer.zip", count=16)
    assert train(write(data=str(fewer))) == 2
    assert "images was" in " ".join(capsys.readouterr().err.split())
    assert train(write(batch_gpu=4)) == 0  # the same batch in more passes goes on


def test_lines_of_steps_that_are_done_again_are_left_out(
    train: Train, write: Write, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = write(kimg=0.12)
    stop_after(monkeypatch, 7)
    assert train(preset) == 143
    with (out / "stats.jsonl").open("a") as file:
        file.write('{"step": 10}\n{"ste')
    assert train(preset) == 0
    assert [row["step"] for row in lines(out / "stats.jsonl")] == [5, 10, 15]


def test_where_the_kernel_is_not_for_the_run_goes_on_without(
    train: Train, write: Write, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write(cfg="stylegan3-t", gamma=1, kimg=0.008, fused_filtered_lrelu=True)) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "fused_filtered_lrelu: going on step by step: it is for CUDA, and the device is cpu" in said
    assert (out / LAST).exists()
