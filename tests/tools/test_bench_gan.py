"""The plain compositions that the GAN trainer is measured against give what the trainer gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lora_trainer.losses.gan import r1_penalty
from lora_trainer.models.gan.filtering import factors_of, plan_resample, resample
from tools.bench_gan import WAYS, Course, Size, plain_r1, plain_resample, seconds_a_kimg, write_images


@pytest.mark.parametrize("two_passes", [False, True])
@pytest.mark.parametrize(
    "up, down, padding", [(4, 1, (9, 7, 8, 6)), (1, 2, (3, 2, 3, 2)), (2, 2, (-1, 4, 5, -2)), (1, 1, (0, 0, 0, 0))]
)
@pytest.mark.parametrize("shape", [(6,), (5, 5)])
def test_the_plain_resampling_is_the_same_map(
    shape: tuple[int, ...], up: int, down: int, padding: tuple[int, int, int, int], two_passes: bool
) -> None:
    draws = torch.Generator().manual_seed(3)
    factors = factors_of(torch.randn(shape, generator=draws))
    x = torch.randn(2, 3, 13, 11, generator=draws, dtype=torch.float64)
    plan = plan_resample(factors, (13, 11), up=up, down=down, padding=padding, gain=4.0)
    torch.testing.assert_close(plain_resample(x, plan, two_passes), resample(x, plan))


def test_the_plain_r1_is_the_same_number() -> None:
    images = torch.randn(3, 1, 4, 4, requires_grad=True)
    weight = torch.randn(16, requires_grad=True)
    logits = (images.flatten(1).square() @ weight)[:, None]
    torch.testing.assert_close(plain_r1([weight])(logits, images, 2.0), r1_penalty(logits, images, 2.0))


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-t"])
def test_every_way_gives_the_losses_and_gradients_of_the_trainer(cfg: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 8 if cfg == "stylegan2" else 16)
    size = Size(cfg, 16, 4, 32, 2)
    courses = [Course(size, way, tmp_path) for way in WAYS.values()]
    for phase, every in courses[0].every().items():
        trainer, *others = (course.run(phase) for course in courses)
        assert every == {"G": 1, "D": 1, "D_reg": 16, "G_reg": 4}[phase]
        assert len(others) == 2
        for other in others:
            np.testing.assert_allclose(other, trainer, rtol=1e-3)


def test_a_penalty_counts_for_the_steps_in_which_it_runs() -> None:
    seconds = {"D": [1.0, 2.0], "D_reg": [16.0, 32.0]}
    assert seconds_a_kimg(seconds, {"D": 1, "D_reg": 16}, batch=8) == [250.0, 500.0]
