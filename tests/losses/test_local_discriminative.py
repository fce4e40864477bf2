"""LDL against numpy windows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from lora_trainer.draws import torch_generator
from lora_trainer.losses.local_discriminative import artifact_map, ldl_loss


def pictures() -> tuple[torch.Tensor, ...]:
    return torch.rand(3, 2, 3, 12, 15, dtype=torch.float64, generator=torch_generator("pictures")).unbind(0)


def expected_map(output: np.ndarray, target: np.ndarray, ema: np.ndarray, ksize: int) -> np.ndarray:
    residual, residual_ema = (np.abs(target - image).sum(0) for image in (output, ema))
    windows = sliding_window_view(np.pad(residual, ksize // 2, mode="reflect"), (ksize, ksize))
    weights = residual.var(ddof=1) ** 0.2 * windows.var(axis=(2, 3), ddof=1)
    return np.where(residual < residual_ema, 0, weights)


def test_map_and_loss() -> None:
    output, target, ema = pictures()
    for ksize in (7, 5):
        maps = np.stack([expected_map(*(each[s].numpy() for each in (output, target, ema)), ksize) for s in range(2)])
        assert 0.2 < (maps == 0).mean() < 0.8
        np.testing.assert_allclose(artifact_map(output, target, ema, ksize)[:, 0], maps, rtol=1e-9)
        weighted = maps[:, None] * np.abs(output.numpy() - target.numpy())
        np.testing.assert_allclose(ldl_loss(output, target, ema, ksize=ksize), weighted.mean((1, 2, 3)), rtol=1e-9)
    squares = (
        expected_map(*(each[0].numpy() for each in (output, target, ema)), 7) * (output - target)[0].numpy()
    ) ** 2
    np.testing.assert_allclose(ldl_loss(output, target, ema, "l2")[0], squares.mean(), rtol=1e-9)


def test_float32_variances_are_close() -> None:
    output, target, ema = pictures()
    single = ldl_loss(output.float(), target.float(), ema.float())
    torch.testing.assert_close(single, ldl_loss(output, target, ema).float(), rtol=1e-4, atol=0)


def test_nothing_where_the_average_is_worse() -> None:
    output, target, ema = pictures()
    assert ldl_loss(target + 0.01 * (output - target), target, ema).max() == 0


def test_equal_pictures_have_a_finite_gradient() -> None:
    _, target, _ = pictures()
    output = target.float().requires_grad_()
    loss = ldl_loss(output, target.float(), target.float())
    loss.sum().backward()
    assert loss.max() == 0
    assert output.grad is not None
    assert output.grad.isfinite().all()
