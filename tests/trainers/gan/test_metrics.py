"""Measuring a GAN: the numbers follow from the images, however they are split; what is kept, told and refused."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_trainer.data.labelled_images import LabelledImages, survey_images
from lora_trainer.losses.feature_networks import open_network
from lora_trainer.losses.frechet_distance import frechet_feature_distance
from lora_trainer.losses.kernel_distance import kernel_distance
from lora_trainer.models.gan.generation import as_bytes
from lora_trainer.models.gan.mapping import Generator
from lora_trainer.models.gan.table import GanSize, build_generator
from lora_trainer.trainers.gan import features
from lora_trainer.trainers.gan import metrics as gan_metrics
from lora_trainer.trainers.gan.fakes import Fakes
from lora_trainer.trainers.gan.features import Alone, Gallery, Interrupted, Watch, kept
from lora_trainer.trainers.gan.metric_checks import directions, network_problems
from lora_trainer.trainers.gan.metric_table import GAN_METRICS, honest_name, reals_of
from lora_trainer.trainers.gan.metrics import GanMetrics
from tests.trainers.gan.run import SIDE_PX, write_images

CPU = torch.device("cpu")


@pytest.fixture
def reals(tmp_path: Path) -> LabelledImages:
    return survey_images(write_images(tmp_path / "bilder ü.zip"), cond=True, mirror=True)


def generator(cfg: str = "stylegan2") -> Generator:
    network = build_generator(cfg, GanSize(SIDE_PX, c_dim=2, cbase=64, cmax=8), dims=(6, 8), map_depth=1, seed=3)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("noise_strength"):
                weight.fill_(0.5)
    return network


def metrics_of(reals: LabelledImages, folder: Path, *names: str, images: int = 20, at_a_time: int = 6) -> GanMetrics:
    networks = {key: open_network(key, "stand-in") for key in ("inception", "vgg")}
    return GanMetrics(names, reals, networks, images, at_a_time, 7, folder, folder / "kept", CPU)


def seen(images: Tensor) -> Tensor:
    return open_network("inception", "stand-in").features(images)


def pictures(reals: LabelledImages, count: int) -> Tensor:
    return torch.from_numpy(np.stack([reals.image(item) for item in range(count)]))


# -- the numbers -----------------------------------------------------------------------------------------------------


def test_fid_and_kid_compare_the_drawn_images_with_the_set(reals: LabelledImages, tmp_path: Path) -> None:
    found = metrics_of(reals, tmp_path, "fid50k_full", "kid50k_full", "kid50k").measure(generator(), 5)
    fakes = Fakes(generator(), reals, 7, CPU).images(range(20))
    plain = seen(pictures(reals, 24))  # without the mirrored ones
    assert found["Metrics/fid0.02k_full_standin"] == pytest.approx(
        frechet_feature_distance(plain, seen(fakes)), rel=1e-4
    )
    assert found["Metrics/kid0.02k_full_standin"] == pytest.approx(kernel_distance(plain, seen(fakes)), rel=1e-4)
    both = seen(pictures(reals, 48))
    assert found["Metrics/kid0.02k_standin"] == pytest.approx(kernel_distance(both, seen(fakes)), rel=1e-4)
    assert abs(kernel_distance(both, seen(fakes)) - kernel_distance(plain, seen(fakes))) > 1e-4


def test_a_set_measured_against_itself_is_perfect(reals: LabelledImages, tmp_path: Path) -> None:
    """With a generator that gives the real images back."""

    class Copies(Fakes):
        def images(self, numbers: Sequence[int]) -> Tensor:
            return torch.from_numpy(np.stack([self.reals.image(number) for number in numbers]))

    metrics = metrics_of(reals, tmp_path, "fid50k_full", "pr50k3_full", images=24)
    copies = Copies(generator(), reals, 7, CPU)
    results: dict[str, float] = {}
    for name in metrics.names:
        results |= metrics._results(name, name, copies, metrics.networks[GAN_METRICS[name].network])
    assert results["fid50k_full"] == pytest.approx(0, abs=1e-6)
    assert results["pr50k3_full_precision"] == results["pr50k3_full_recall"] == 1


@pytest.mark.parametrize("cfg", ["stylegan2", "creps"])
def test_every_metric_but_equivariance_measures_any_generator(cfg: str, reals: LabelledImages, tmp_path: Path) -> None:
    names = [name for name, metric in GAN_METRICS.items() if not metric.moves_input]
    found = metrics_of(reals, tmp_path, *names, images=10).measure(generator(cfg), 1)
    assert len(found) == sum(len(GAN_METRICS[name].results) for name in names) == 11
    assert all(math.isfinite(value) for value in found.values())
    assert found["Metrics/ppl2_wend_0.01k_standin"] > 0
    assert found["Metrics/is0.01k_standin_mean"] >= 1


def test_stylegan3_follows_its_input(reals: LabelledImages, tmp_path: Path) -> None:
    names = ("eqt50k_int", "eqt50k_frac", "eqr50k")
    size = GanSize(32, cbase=256, cmax=16)
    larger = survey_images(write_images(tmp_path / "larger.zip", side=32, labels=False))
    for cfg, turns in (("stylegan3-t", False), ("stylegan3-r", True)):
        network = build_generator(cfg, size, dims=(16, 16), map_depth=2)
        before = network.synthesis.input.transform
        found = metrics_of(larger, tmp_path, *names, images=4, at_a_time=3).measure(network, 1)
        assert network.synthesis.input.transform is before
        shifted, between, turned = found.values()
        assert list(found) == ["Metrics/eqt0.004k_int", "Metrics/eqt0.004k_frac", "Metrics/eqr0.004k"]
        assert min(shifted, between) > 40
        assert (turned > 65) is turns


def test_the_split_changes_nothing(reals: LabelledImages, tmp_path: Path) -> None:
    """Two processes, and other numbers of images at a time."""
    names = ("fid50k_full", "pr50k3_full", "ppl2_wend")
    wanted = metrics_of(reals, tmp_path / "one", *names).measure(generator(), 1)
    for at_a_time in (1, 20):
        found = metrics_of(reals, tmp_path / f"{at_a_time}", *names, at_a_time=at_a_time).measure(generator(), 1)
        assert found == pytest.approx(wanted, rel=1e-3)


def test_two_processes_see_all_images_once() -> None:
    """Their shares add up to what one process sees, in the order of the images."""
    asked: list[int] = []

    def images(numbers: Sequence[int]) -> Tensor:
        asked.extend(numbers)
        return torch.tensor(numbers, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)

    def see(pixels: Tensor) -> Tensor:
        return torch.stack([pixels[:, 0, 0, 0], pixels[:, 0, 1, 1] * 2], 1).float()

    shares = [Gallery("numbers", images, 11, 3, Alone(rank, 2), CPU).features(see, Watch()) for rank in (0, 1)]
    assert sorted(asked) == list(range(11))
    wanted = torch.stack([torch.arange(11), torch.arange(11) * 2], 1).float()
    assert torch.equal(shares[0] + shares[1], wanted)
    moments = [Gallery("numbers", images, 11, 3, Alone(rank, 2), CPU).moments(see, Watch()) for rank in (0, 1)]
    assert torch.equal(moments[0].sums + moments[1].sums, wanted.double().sum(0))
    assert torch.equal(moments[0].products + moments[1].products, wanted.double().t() @ wanted.double())
    nothing = Gallery("numbers", images, 3, 3, Alone(1, 2), CPU)
    assert torch.equal(nothing.features(see, Watch()), torch.zeros(3, 2))
    assert nothing.moments(see, Watch()).sums.tolist() == [0, 0]


# -- fakes -----------------------------------------------------------------------------------------------------------


def test_a_number_is_always_the_same_image(reals: LabelledImages) -> None:
    fakes = Fakes(generator(), reals, 7, CPU)
    assert fakes.noise([0])["noise"].shape[0] == 1
    one, some = fakes.images([3]), fakes.images([5, 3])
    assert torch.equal(one[0], some[1])
    assert not torch.equal(some[0], some[1])
    assert not torch.equal(one, Fakes(generator(), reals, 8, CPU).images([3]))
    shares = fakes.labels(range(200)).mean(0)
    assert shares.tolist() == pytest.approx([0.5, 0.5], abs=0.12)


def test_bytes_are_cut_off_as_published_numbers_had_them() -> None:
    values = torch.tensor([-2.0, -1.0, -0.996, 0.0, 0.99, 1.0, 2.0])
    assert as_bytes(values).tolist() == [0, 0, 1, 128, 254, 255, 255]


# -- what is kept ----------------------------------------------------------------------------------------------------


def test_real_images_are_looked_at_once(reals: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    image = LabelledImages.image
    monkeypatch.setattr(LabelledImages, "image", lambda self, item: looked.append(item) or image(self, item))
    first = metrics_of(reals, tmp_path, "fid50k_full").measure(generator(), 1)
    assert sorted(looked) == list(range(24))
    assert metrics_of(reals, tmp_path, "fid50k_full").measure(generator(), 1) == first
    assert len(looked) == 24
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(file.read_bytes()[:-5] + b"wrong")
    assert metrics_of(reals, tmp_path, "fid50k_full").measure(generator(), 1) == first
    assert len(looked) == 48
    metrics_of(reals, tmp_path, "fid50k").measure(generator(), 1)  # all 48, with the mirrored ones
    assert len(looked) == 96
    other = replace(reals, digest="of other images")
    metrics_of(other, tmp_path, "fid50k_full").measure(generator(), 1)
    assert len(looked) == 120


def test_a_folder_that_cannot_be_written_to_is_told_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("lora_trainer"), "propagate", True)
    (tmp_path / "file").write_text("")
    found = kept(tmp_path / "file" / "folder", ["a"], Alone(), lambda: {"x": torch.ones(2)})
    assert found["x"].tolist() == [1, 1]
    assert "what was seen in the real images cannot be kept there" in caplog.text


# -- what is told ----------------------------------------------------------------------------------------------------


def test_each_number_gets_a_line(reals: LabelledImages, tmp_path: Path) -> None:
    metrics = metrics_of(reals, tmp_path, "pr50k3_full")
    values = metrics.measure(generator(), 5, "network-snapshot-000200.safetensors")
    metrics.measure(generator(), 6)
    rows = [json.loads(line) for line in (tmp_path / "metric-pr0.02k3_full_standin.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 6]
    row = rows[0]
    assert list(row) == [
        "results", "metric", "comparable", "total_time", "total_time_str", "num_gpus", "snapshot_pkl", "step",
        "timestamp",
    ]  # fmt: skip
    assert {f"Metrics/{name}": value for name, value in row["results"].items()} == values
    assert list(row["results"]) == ["pr0.02k3_full_standin_precision", "pr0.02k3_full_standin_recall"]
    assert (row["metric"], row["comparable"], row["num_gpus"]) == ("pr0.02k3_full_standin", False, 1)
    assert (row["snapshot_pkl"], row["total_time_str"]) == ("network-snapshot-000200.safetensors", "0s")


@pytest.mark.parametrize(
    ("name", "images", "mark", "shown"),
    [
        ("fid50k_full", 50_000, "", "fid50k_full"),
        ("fid50k_full", 2000, "standin", "fid2k_full_standin"),
        ("pr50k3", 500, "torchvision", "pr0.5k3_torchvision"),
        ("ppl2_wend", 50_000, "", "ppl2_wend"),
        ("ppl2_wend", 1000, "", "ppl2_wend_1k"),
        ("eqt50k_frac", 100, "", "eqt0.1k_frac"),
    ],
)
def test_names_say_what_others_cannot_compare(name: str, images: int, mark: str, shown: str) -> None:
    assert honest_name(name, images, mark) == shown


def test_a_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(logging.getLogger("lora_trainer"), "propagate", True)
    now = [0.0]
    monkeypatch.setattr(gan_metrics.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, logger="lora_trainer"):
        progress = gan_metrics._Progress("fid50k_full")
        for done in range(64, 641, 64):
            progress.tell("generated images", done, 1000)
            now[0] += 4
    said = dict.fromkeys(record.getMessage() for record in caplog.records)  # other tests may have left a handler
    assert list(said) == [
        "fid50k_full: 256 of 1000 generated images, 0:34 left",
        "fid50k_full: 448 of 1000 generated images, 0:29 left",
        "fid50k_full: 640 of 1000 generated images, 0:20 left",
    ]


def test_a_stop_ends_it_within_a_batch(reals: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([False] * 9 + [True] * 9)
    monkeypatch.setattr(gan_metrics, "stop_requested", lambda: next(asked))
    metrics = metrics_of(reals, tmp_path, "is50k", "fid50k_full", "kid50k_full")  # of 4 rounds, 4 and 4, 4 and 4
    found = metrics.measure(generator(), 5)
    assert list(found) == ["Metrics/is0.02k_standin_mean", "Metrics/is0.02k_standin_std"]
    assert [file.name for file in tmp_path.glob("metric-*")] == ["metric-is0.02k_standin.jsonl"]
    with pytest.raises(Interrupted):
        Gallery("numbers", lambda numbers: torch.zeros(1), 3, 3, Alone(), CPU).features(
            lambda pixels: pixels, Watch(stopped=lambda: True)
        )


# -- the preset ------------------------------------------------------------------------------------------------------


def preset(**keys: Any) -> Any:
    names = keys.get("measured", ())
    networks = tuple(dict.fromkeys(GAN_METRICS[name].network for name in names if GAN_METRICS[name].network))
    usual = {"cfg": "stylegan2", "inception": "", "vgg": "", "metric_images": 0, "metric_networks": networks}
    return SimpleNamespace(**{**usual, **keys})


def test_the_table_has_every_metric_of_the_presets() -> None:
    from lora_trainer.config.gan_saving import METRICS

    assert {name: metric.network for name, metric in GAN_METRICS.items()} == dict(METRICS)


def test_how_many_real_images_a_metric_sees(reals: LabelledImages) -> None:
    many = replace(reals, names=tuple(str(number) for number in range(300_000)))
    assert [reals_of(name, many) for name in ("fid50k_full", "pr50k3_full", "kid50k_full")] == [
        300_000,
        200_000,
        300_000,
    ]
    assert [reals_of(name, many) for name in ("fid50k", "kid50k", "pr50k3")] == [50_000] * 3
    assert [reals_of(name, reals) for name in ("fid50k_full", "fid50k")] == [24, 48]


def test_directions_have_the_names_of_the_numbers(reals: LabelledImages, tmp_path: Path) -> None:
    names = ("fid50k_full", "pr50k3_full", "is50k")
    found = directions(preset(measured=names, inception="stand-in", vgg="stand-in", metric_images=20))
    assert found == {
        "Metrics/fid0.02k_full_standin": False,
        "Metrics/pr0.02k3_full_standin_precision": True,
        "Metrics/pr0.02k3_full_standin_recall": True,
        "Metrics/is0.02k_standin_mean": True,
        "Metrics/is0.02k_standin_std": False,
    }
    assert list(metrics_of(reals, tmp_path, *names).measure(generator(), 1)) == list(found)


def test_networks_and_metrics_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    problems = dict(network_problems(preset(measured=("fid50k_full", "pr50k3"), vgg="stand-in")))
    assert list(problems) == ["inception"]
    assert problems["inception"].startswith("no network is given, and there is none in")
    (problem,) = network_problems(preset(measured=("eqr50k",)))
    assert problem == ("metrics", "eqr50k moves the input of StyleGAN3, which stylegan2 has not; leave it out")
    (problem,) = network_problems(preset(measured=("ppl2_wend",), cfg="r3gan", vgg="stand-in"))
    assert problem[1] == "ppl2_wend goes from one w to another, and r3gan has no mapping network; leave it out"
    assert not list(network_problems(preset(measured=("eqr50k",), cfg="stylegan3-t")))


def test_build_takes_the_presets_words(reals: LabelledImages, tmp_path: Path) -> None:
    given = preset(
        measured=("fid50k_full",), inception="stand-in", output_dir=str(tmp_path), metric_cache="",
        images_per_pass=lambda world: 8 // world,
    )  # fmt: skip
    job: Any = SimpleNamespace(preset=given, images=reals, seed=3, world=2)
    built = GanMetrics.build(job, CPU)
    assert built is not None
    assert (built.images, built.at_a_time, built.seed, built.cache) == (50_000, 16, 3, tmp_path / "metrics")
    assert list(built.networks) == ["inception"]
    given.measured = ()
    assert GanMetrics.build(job, CPU) is None


def test_a_stop_request_can_be_asked_for() -> None:
    from lora_trainer.engine import signals

    asked: Callable[[], bool] = signals.stop_requested
    before = signals._installed
    try:
        request = signals.StopRequest()
        signals._installed = request
        assert not asked()
        request.signal = 15
        assert asked()
    finally:
        signals._installed = before
    assert features.Watch().stopped() is False
