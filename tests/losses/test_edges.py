"""Edge losses against scipy's convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.edges import gradient_l1_loss, gradient_variance_loss, sobel, sobel_edge_loss

RIGHT = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])


def pictures(height: int = 20, width: int = 35) -> tuple[torch.Tensor, torch.Tensor]:
    size = (2, 2, 3, height, width)
    return torch.rand(size, dtype=torch.float64, generator=torch_generator("pictures")).unbind(0)


def gradients(image: torch.Tensor, weights: tuple[float, float, float]) -> list[np.ndarray]:
    """Per sample, (2, h, w)."""
    lumas = np.tensordot(np.array(weights), image.numpy(), axes=(0, 1))
    return [np.stack([correlate(luma, kernel, mode="constant") for kernel in (RIGHT, RIGHT.T)]) for luma in lumas]


def test_sobel_points_right_and_down() -> None:
    ramp = torch.arange(5.0).view(1, 1, 1, 5).expand(1, 1, 5, 5)
    right, down = sobel(ramp)
    assert right[0, 0, 2, 1:-1].tolist() == [8, 8, 8]
    assert down[0, 0, 2].tolist() == [0, 0, 0, 0, 0]
    assert torch.equal(sobel(ramp.mT)[1], right.mT)


def test_sobel_edge_loss() -> None:
    x, y = pictures()
    weights = (0.299, 0.587, 0.114)
    pairs = zip(gradients(x, weights), gradients(y, weights), strict=True)
    np.testing.assert_allclose(sobel_edge_loss(x, y), [((a - b) ** 2).mean() / 16 for a, b in pairs], rtol=1e-9)


@pytest.mark.parametrize("patch", [16, 5])
def test_gradient_variance_loss(patch: int) -> None:
    x, y = pictures()
    weights = (0.2989, 0.587, 0.114)
    expected = []
    for found, wanted in zip(gradients(x, weights), gradients(y, weights), strict=True):
        total = 0.0
        for a, b in zip(found, wanted, strict=True):  # one direction
            rows, columns = a.shape[0] // patch, a.shape[1] // patch
            places = [np.s_[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch] for r in range(rows)
                      for c in range(columns)]  # fmt: skip
            total += np.mean([abs(a[place].var(ddof=1) - b[place].var(ddof=1)) for place in places])
        expected.append(total)
    np.testing.assert_allclose(gradient_variance_loss(x, y, patch, "l1"), expected, rtol=1e-9)
    np.testing.assert_allclose(gradient_variance_loss(x, y, patch), expected, rtol=1e-6)


def test_a_patch_larger_than_the_crop_is_refused() -> None:
    with pytest.raises(Refusal, match=r"^patch_size 32 does not fit crops of 20 x 35 px; write 2 to the crop's side$"):
        gradient_variance_loss(*pictures(), patch_size=32)


def test_flat_pictures_have_finite_gradients() -> None:
    for loss in (sobel_edge_loss, gradient_variance_loss):
        x = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
        loss(x, torch.full((1, 3, 16, 16), 0.5)).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()


def test_gradient_l1_loss() -> None:
    x, y = pictures()
    steps = [np.abs(np.diff(x.numpy(), axis=axis) - np.diff(y.numpy(), axis=axis)) for axis in (3, 2)]
    expected = sum(each.reshape(2, -1).mean(1) for each in steps) / 2
    np.testing.assert_allclose(gradient_l1_loss(x, y), expected, rtol=1e-9)
    assert gradient_l1_loss(x, x + 0.5).max() < 1e-12  # brightness is no edge
