"""Low-pass filters for the layers of StyleGAN3: windowed sinc, or jinc for the same cut in every direction."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def lowpass_filter(taps: int, cutoff: float, width: float, rate: float, radial: bool = False) -> Tensor | None:
    """Pass below `cutoff`, stop above cutoff + width / 2, at `rate` samples a unit; None for a single tap.

    (taps,) for both axes, or (taps, taps) when radial; of sum 1, under a Kaiser window.
    """
    if taps == 1:
        return None
    import scipy.signal  # here: it loads slowly, and only StyleGAN3 needs it

    if not radial:
        return torch.as_tensor(scipy.signal.firwin(taps, cutoff, width=width, fs=rate), dtype=torch.float32)
    return torch.as_tensor(_radial(taps, cutoff, width, rate), dtype=torch.float32)


def _radial(taps: int, cutoff: float, width: float, rate: float) -> np.ndarray:
    """The two-dimensional transform of a disc is a jinc, J1(2 pi f r) / (pi r)."""
    import scipy.signal
    import scipy.special

    places = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(*np.meshgrid(places, places))  # never 0: the number of taps is even
    attenuation = scipy.signal.kaiser_atten(taps, width / (rate / 2))
    window = np.kaiser(taps, scipy.signal.kaiser_beta(attenuation))
    kernel = scipy.special.j1(2 * cutoff * np.pi * radius) / (np.pi * radius) * np.outer(window, window)
    result: np.ndarray = kernel / kernel.sum()
    return result
