"""The perceptual path length: steps, sizes, and the distances that are left out."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.losses.perceptual_path_length import as_measured, end_points, mean_path_length, path_distances


def test_a_step_of_epsilon_along_a_straight_path_has_its_squared_length() -> None:
    """Features that are the latents themselves move by their difference."""
    first, second = torch.zeros(3, 4).double(), torch.full((3, 4), 2.0).double()
    begin, end = end_points(first, second)
    assert torch.equal(begin, first)
    torch.testing.assert_close(path_distances(begin, end), torch.full((3,), 16.0).double())


def test_images_are_0_to_255_in_three_channels_of_at_most_256_px() -> None:
    image = torch.linspace(-1, 1, 512 * 512).view(1, 1, 512, 512)
    seen = as_measured(image)
    assert seen.shape == (1, 3, 256, 256)
    wanted = (image[0, 0, :2, :2].mean() + 1) * 127.5
    torch.testing.assert_close(seen[0, :, 0, 0], wanted.expand(3))
    assert as_measured(torch.ones(2, 3, 32, 32)).shape == (2, 3, 32, 32)
    assert float(as_measured(torch.ones(1, 3, 8, 8)).max()) == 255
    assert as_measured(torch.zeros(1, 3, 300, 300)).shape == (1, 3, 300, 300)


def test_the_outermost_percent_is_left_out() -> None:
    distances = torch.arange(1, 202).double()  # 1 and 99 % of 200 steps: 3 and 199
    assert mean_path_length(distances) == pytest.approx(101)
    distances[-1] = 1e9
    assert mean_path_length(distances) == pytest.approx(101)
    assert mean_path_length(torch.tensor([5.0])) == 5
