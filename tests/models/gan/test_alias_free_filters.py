"""The filters' defining properties, and the jinc against a transform computed numerically."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch

from lora_trainer.models.gan.alias_free_filters import lowpass_filter


def test_a_line_is_scipys_kaiser_window() -> None:
    found = lowpass_filter(12, 2.0, 12.0, 32)
    assert found is not None
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(12, 12 / 16))
    places = np.arange(12) - 5.5
    wanted = np.sinc(2 * 2.0 / 32 * places) * np.kaiser(12, beta)
    np.testing.assert_allclose(found, wanted / wanted.sum(), atol=1e-7)


def test_the_jinc_passes_a_disc() -> None:
    """By its definition: the integral of plane waves over a disc, under the window of the line's filter."""
    taps, cutoff, width, rate = 12, 5.0, 9.0, 32.0
    found = lowpass_filter(taps, cutoff, width, rate, radial=True)
    assert found is not None
    assert found.shape == (12, 12)
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2)))
    window = np.outer(np.kaiser(taps, beta), np.kaiser(taps, beta))
    radii, angles = np.meshgrid((np.arange(2000) + 0.5) / 2000 * cutoff, (np.arange(64) + 0.5) / 64 * math.pi)
    places = (np.arange(taps) - 5.5) / rate
    across, down = np.meshgrid(places, places)
    distance = np.hypot(across, down)
    disc = np.array([(np.cos(2 * np.pi * radii * np.cos(angles) * r) * radii).sum() for r in distance.ravel()])
    wanted = disc.reshape(taps, taps) * window
    np.testing.assert_allclose(found, wanted / wanted.sum(), atol=1e-6)


@pytest.mark.parametrize("radial", [False, True])
def test_a_constant_passes_and_a_single_tap_is_no_filter(radial: bool) -> None:
    found = lowpass_filter(24, 4.0, 8.0, 64, radial)
    assert found is not None
    assert found.dtype == torch.float32
    assert float(found.double().sum()) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(found, found.flip(tuple(range(found.ndim))))
    assert lowpass_filter(1, 4.0, 8.0, 64, radial) is None
