"""The parts of a GAN's step: how a batch is split, its losses, what is counted, and what changes over a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lora_trainer.data.labelled_images import LabelledImages, survey_images
from lora_trainer.engine.phase import Batch
from lora_trainer.losses.gan import path_length_penalty, path_lengths
from lora_trainer.models.gan import r3gan
from lora_trainer.models.gan.augmentation_strength import AdaptiveStrength, FixedStrength
from lora_trainer.models.gan.discriminator import Discriminator
from lora_trainer.models.gan.mapping import Generator
from lora_trainer.models.gan.table import GanSize, build_discriminator, build_generator, build_r3gan
from lora_trainer.trainers.gan.average import HalfLifeAverage
from lora_trainer.trainers.gan.batches import GanBatches, Split
from lora_trainer.trainers.gan.course import Course, lazy_adam
from lora_trainer.trainers.gan.networks import bound_gradients
from lora_trainer.trainers.gan.painting import Brush, Eye, Painter, normal_rows
from lora_trainer.trainers.gan.phases import LOSS_NAMES, Contest, PathMean
from lora_trainer.trainers.gan.sheets import Sheet, grid_size
from lora_trainer.trainers.gan.statistics import Tally
from lora_trainer.trainers.gan.ticks import spoken_duration
from lora_trainer.trainers.gan.trainer import as_images
from tests.trainers.gan.run import write_images

CPU = torch.device("cpu")
LAZY = {"G_reg": 4, "D_reg": 16}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> LabelledImages:
    path = write_images(tmp_path_factory.mktemp("bilder ü") / "shapes.zip", count=10)
    return survey_images(path, cond=True, mirror=True)


def networks() -> tuple[Generator, Discriminator]:
    size = GanSize(16, cbase=64, cmax=8, c_dim=2)
    return build_generator("stylegan2", size, seed=1, map_depth=1), build_discriminator(size, seed=2)


def contest(generator: Generator | r3gan.Generator, discriminator: nn.Module) -> Contest:
    return Contest(
        painter=Painter(generator),
        discriminator=discriminator,
        brush=Brush(5, getattr(generator.synthesis, "noise_size", 0)),
        eye=Eye(5, 8, None, FixedStrength(), blurs=False),
        tally=Tally(LOSS_NAMES, CPU),
        path_mean=PathMean(CPU),
        gamma=lambda step: 3.0,
        path_length_weight=2.0,
        lazy=LAZY,
        sum_over_processes=lambda sums: sums,
    )


def batches(images: LabelledImages, per_pass: int = 8, rank: int = 0, world: int = 1) -> GanBatches:
    draws = {"G": 1, "D": 1, "G_reg": 4}
    return GanBatches(images, 5, Split(8, rank, world, per_pass), 512, draws, style_mixing=0.9, num_ws=6)


def micros(images: LabelledImages, step: int, per_pass: int = 8) -> list[Batch]:
    return [{**micro, "images": as_images(micro["images"])} for micro in batches(images, per_pass)(step)]


def test_groups_that_are_compared_are_the_same_however_a_batch_is_split() -> None:
    def groups(split: Split, group: int) -> set[frozenset[int]]:
        found = set()
        for positions in split.positions():
            apart = len(positions) // group
            found |= {frozenset(positions[first::apart]) for first in range(apart)}
        return found

    whole = groups(Split(32, 0, 1, 32), 4)
    assert len(whole) == 8
    assert frozenset({0, 8, 16, 24}) in whole
    assert groups(Split(32, 0, 1, 8), 4) == whole
    shared = [groups(Split(32, rank, 2, 4), 4) for rank in range(2)]
    assert shared[0] | shared[1] == whole
    assert not shared[0] & shared[1]


def test_a_position_draws_the_same_whoever_has_it(images: LabelledImages) -> None:
    (whole,) = batches(images)(4)
    for rank in range(2):
        for micro in batches(images, 2, rank, 2)(4):
            places = list(micro["positions"])
            for name in ("images", "labels", "G/z", "G/labels", "G_reg/z", "D/z"):
                assert torch.equal(micro[name], whole[name][places]), name
            assert [whole["names"][place] for place in places] == micro["names"]
            assert micro.get("G/cutoff") == whole.get("G/cutoff")
    assert not torch.equal(whole["G/z"], whole["D/z"])
    assert "G_reg/z" not in batches(images)(5)[0]
    rows = normal_rows((5, "noise"), [3, 1], (2, 4), CPU)
    assert torch.equal(rows[0], normal_rows((5, "noise"), [3], (2, 4), CPU)[0])


def test_every_image_is_shown_before_the_first_one_comes_again(images: LabelledImages) -> None:
    names = [name for step in range(5) for name in batches(images)(step)[0]["names"]]
    shown = names[: len(images)]
    assert len(images) == 20
    assert sorted(shown) == sorted([images.name(item) for item in range(20)])  # each twice, once mirrored
    assert shown != names[len(images) : 2 * len(images)]


def test_styles_are_mixed_in_nine_of_ten_steps(images: LabelledImages) -> None:
    data = batches(images)
    cutoffs = [data(step)[0].get("G/cutoff") for step in range(60)]
    mixed = [cutoff for cutoff in cutoffs if cutoff is not None]
    assert 45 < len(mixed) < 60
    assert set(mixed) == {1, 2, 3, 4, 5}


def test_mixed_styles_take_over_at_the_cutoff() -> None:
    generator, _ = networks()
    z, z2, labels = torch.randn(2, 512), torch.randn(2, 512), torch.eye(2)
    noise = torch.zeros(2, generator.synthesis.noise_size)  # type: ignore[call-overload]
    _, ws = Painter(generator)(z, labels, z2, 2, noise, False)
    assert torch.equal(ws[:, :2], generator.mapping(z, labels)[:, :2])
    assert torch.equal(ws[:, 2:], generator.mapping(z2, labels)[:, 2:])


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("per_pass", [8, 4, 2])
def test_path_length_is_that_of_the_whole_batch_in_any_number_of_passes(images: LabelledImages, per_pass: int) -> None:
    """Value and gradient are those of autograd through the mean, computed at once over half of the batch."""
    generator, discriminator = networks()
    part = contest(generator, discriminator)
    part.path_mean.value = torch.tensor(0.3)
    (whole,) = micros(images, 4)
    painted, ws = part.brush.paint(part.painter, whole, "G_reg", first=4)
    directions = normal_rows((5, 4, "G_reg", "directions"), range(4), painted.shape[1:], CPU)
    penalties, mean = path_length_penalty(path_lengths(painted, ws, directions), torch.tensor(0.3))
    (penalties.mean() * 2.0 * 4).backward()
    expected = gradients(generator)
    generator.zero_grad()
    passes = micros(images, 4, per_pass)
    part.find_path_mean(passes)
    total = torch.zeros(())
    for micro in passes:
        losses = part.path_length_loss(part.painter, micro).per_sample
        assert losses.shape == (per_pass,)
        (losses.sum() / 8).backward()
        total += losses.detach().sum() / 8
    part.path_mean.settle()
    assert float(total) == pytest.approx(float(penalties.mean()) * 8, rel=1e-5)
    assert float(part.path_mean.value) == pytest.approx(float(mean), rel=1e-6)
    found = gradients(generator)
    assert set(found) >= set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-4, atol=1e-5 * float(gradient.abs().max() + 1))
    assert part.path_mean.of_batch is None


@pytest.mark.parametrize("phase", ["generator_loss", "path_length_loss", "discriminator_loss", "gradient_penalty"])
def test_every_weight_gets_a_gradient_in_every_phase(images: LabelledImages, phase: str) -> None:
    """Else several processes would wait for each other for ever."""
    generator, discriminator = networks()
    part = contest(generator, discriminator)
    (batch,) = micros(images, 0)
    part.paint_fakes([batch])
    module = part.painter if phase in ("generator_loss", "path_length_loss") else discriminator
    getattr(part, phase)(module, batch).per_sample.sum().backward()
    assert [name for name, weight in module.named_parameters() if weight.grad is None] == []


def test_the_penalty_of_real_images_counts_for_the_steps_in_between(images: LabelledImages) -> None:
    generator, discriminator = networks()
    part = contest(generator, discriminator)
    (batch,) = micros(images, 0)
    real = batch["images"].clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(real, batch["labels"]).sum(), real)
    squares = slope.square().sum((1, 2, 3))
    torch.testing.assert_close(part.gradient_penalty(discriminator, batch).per_sample, squares * (3.0 / 2) * 16)
    told = part.tally
    told.settle(lambda sums: sums)
    assert told.take()["Loss/r1_penalty"]["mean"] == pytest.approx(float(squares.mean()), rel=1e-5)


def test_the_relativistic_losses_compare_and_bound_both_kinds(images: LabelledImages) -> None:
    size = GanSize(16, cbase=128, cmax=16, c_dim=2)
    generator, discriminator = build_r3gan(size, seed=1)
    with torch.no_grad():
        for weight in discriminator.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    part = contest(generator, discriminator)
    draws = {"G": 1, "D": 1}
    (micro,) = GanBatches(images, 5, Split(8, 0, 1, 8), 64, draws)(3)
    batch = {**micro, "images": as_images(micro["images"])}
    part.paint_fakes([batch])
    fakes, reals = (batch[name].clone().requires_grad_(True) for name in ("fakes", "images"))
    fake, real = discriminator(fakes, batch["D/labels"])[:, 0], discriminator(reals, batch["labels"])[:, 0]
    slopes = [torch.autograd.grad(logits.sum(), seen)[0] for logits, seen in ((real, reals), (fake, fakes))]
    penalty = sum(slope.square().sum((1, 2, 3)) for slope in slopes) * 1.5
    found = part.relativistic_discriminator_loss(discriminator, batch)
    torch.testing.assert_close(found.per_sample, nn.functional.softplus(fake - real) + penalty)
    torch.testing.assert_close(found.terms["logistic"], nn.functional.softplus(fake - real))
    painted, _ = part.brush.paint(part.painter, batch, "G")
    wanted = nn.functional.softplus(real - discriminator(painted, batch["G/labels"])[:, 0])
    torch.testing.assert_close(part.relativistic_generator_loss(part.painter, batch).per_sample, wanted)
    found.per_sample.sum().backward()
    assert [name for name, weight in discriminator.named_parameters() if weight.grad is None] == []


def test_fakes_move_the_running_mean_once_in_any_number_of_passes(images: LabelledImages) -> None:
    means = []
    for per_pass in (8, 2):
        generator, discriminator = networks()
        passes = micros(images, 1, per_pass)
        contest(generator, discriminator).paint_fakes(passes)
        means.append(generator.mapping.w_avg.clone())
        assert not passes[0]["fakes"].requires_grad
    torch.testing.assert_close(*means, rtol=1e-5, atol=1e-8)
    assert float(means[0].abs().max()) > 0


def test_numbers_of_a_tick_survive_a_stop() -> None:
    tally = Tally(["a", "b"], CPU)
    tally.add("a", torch.tensor([1.0, 3.0]))
    sums = tally.settle(lambda sums: sums * 2)  # two processes
    assert sums["a"].tolist() == [4, 8, 20]
    other = Tally(["b", "a"], CPU)
    other.load_state_dict(tally.state_dict())
    other.add("a", torch.tensor([8.0]))
    other.settle(lambda sums: sums)
    assert other.take() == {"a": {"num": 5, "mean": pytest.approx(3.2), "std": pytest.approx((84 / 5 - 3.2**2) ** 0.5)}}
    assert other.take() == {}


def test_signs_of_all_processes_adapt_the_augmentation_after_a_stop_too() -> None:
    strength = AdaptiveStrength(kimg=1.0)
    strength.count(torch.tensor([6.0, 8.0]))
    other = AdaptiveStrength(kimg=1.0)
    other.load_state_dict(strength.state_dict())
    other.count(torch.tensor([8.0, 8.0]))
    other.update(8)
    assert (other.mean_sign, other.p) == (14 / 16, 8 * 4 / 1000)


def test_the_average_follows_at_once_at_first_and_then_with_its_half_life() -> None:
    layer = nn.Linear(1, 1)
    average = HalfLifeAverage(layer, 32, lambda step: 10_000.0, 0.05)
    assert average.decay_at(0) == 0.0
    assert average.decay_at(100) == pytest.approx(0.5 ** (32 / (100 * 32 * 0.05)))
    assert average.decay_at(10**6) == pytest.approx(0.5 ** (32 / 10_000))
    assert HalfLifeAverage(layer, 32, lambda step: 10_000.0).decay_at(0) == pytest.approx(0.5 ** (32 / 10_000))


def test_lazy_penalties_change_rate_and_betas() -> None:
    rate, betas = lazy_adam(0.002, (0.0, 0.99), 16)
    assert rate == pytest.approx(0.002 * 16 / 17)
    assert betas == (0.0, pytest.approx(0.99 ** (16 / 17)))
    assert lazy_adam(0.0025, (0.0, 0.99), 0) == (0.0025, (0.0, 0.99))


def test_a_course_follows_a_cosine() -> None:
    course = Course(1.0, 0.25, 100)
    assert [course(step) for step in (0, 50, 100, 500)] == [1.0, pytest.approx(0.625), 0.25, 0.25]
    assert Course(2.0, 2.0, 0)(7) == 2.0


def test_gradients_that_overflowed_are_bounded_after_weights_were_frozen_in_between() -> None:
    layer = nn.Linear(2, 1, bias=False)
    bound_gradients(dict(layer.named_parameters()))
    layer.weight.requires_grad_(False)
    layer.weight.requires_grad_(True)
    layer(torch.tensor([[float("inf"), float("nan")]])).backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1e5, 0.0]]


def test_a_sheet_has_a_row_for_each_label(images: LabelledImages) -> None:
    assert [grid_size(side) for side in (32, 256, 512, 1024)] == [(32, 32), (30, 16), (15, 8), (7, 4)]
    sheet = Sheet.plan(images, 512, 7)
    rows = sheet.labels.view(sheet.rows, sheet.columns, 2)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert rows[:4, 0].tolist() == [[1, 0], [0, 1]] * 2
    assert max(sheet.items) < 10  # none of the mirrored ones
    plain = Sheet.plan(replace(images, labels=None), 512, 7)
    assert len(set(plain.items[:10])) == 10
    assert torch.equal(plain.z, sheet.z)


def test_a_sheet_shows_what_the_generator_draws(images: LabelledImages, tmp_path: Path) -> None:
    from PIL import Image

    generator, _ = networks()
    sheet = replace(Sheet.plan(images, 512, 7), columns=3, rows=2)
    sheet = replace(sheet, items=sheet.items[:6], z=sheet.z[:6], labels=sheet.labels[:6])
    sheet.write_fakes(tmp_path / "fakes.png", generator, 4)
    sheet.write_reals(tmp_path / "reals.png", images)
    with torch.no_grad():
        image = generator(sheet.z[4:5], sheet.labels[4:5], noise="const")[0]
    expected = (image * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    with Image.open(tmp_path / "fakes.png") as fakes, Image.open(tmp_path / "reals.png") as reals:
        found = np.asarray(fakes)[16:32, 16:32].astype(int)
        assert abs(found - expected.numpy().astype(int)).max() <= 1  # convolutions of another batch
        assert (np.asarray(reals)[16:32, 16:32] == images.image(sheet.items[4]).transpose(1, 2, 0)).all()


@pytest.mark.parametrize(
    ("seconds", "text"), [(45.2, "45s"), (185, "3m 05s"), (7385, "2h 03m 05s"), (93780, "1d 02h 03m")]
)
def test_durations_are_spoken_as_usual(seconds: float, text: str) -> None:
    assert spoken_duration(seconds) == text
