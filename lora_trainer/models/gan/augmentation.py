"""Augmentation of what the discriminator sees, real and fake alike (Karras et al. 2020a), with gradients to the images.

Which image gets what is drawn in `augmentation_draws.py`. How strong p is, `augmentation_strength.py` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.models.gan.augmentation_draws import BGC, Augmentation, AugmentOptions, Key, draw_augmentation
from lora_trainer.models.gan.filtering import Factors, factors_of, normalized_filter, plan_resample, resample
from lora_trainer.models.gan.grid_sampling import sample_bilinear
from lora_trainer.models.gan.wavelets import SYM2, SYM6

# The filter's weight lies at its tap 5, half a sample before its middle: so sample 2 i of an image at twice the
# resolution is its pixel i, and the images' centres are half a sample apart.
SMOOTH_PX = len(SYM6) // 4  # of the border that the filter needs on each side


class AugmentPipe:
    """`pipe(images, p, keys)`: a new draw for each image and key, applied."""

    def __init__(self, options: AugmentOptions = BGC) -> None:
        self.options = options

    def __call__(self, images: Tensor, p: float, keys: Sequence[Key]) -> Tensor:
        """images (b, 1 or 3, h, w); p is clamped to 0..1; one key for each image, like (seed, step, position)."""
        size = (images.shape[2], images.shape[3])
        return augment(images, draw_augmentation(self.options, p, size, keys))


def augment(images: Tensor, how: Augmentation) -> Tensor:
    """(b, 1 or 3, h, w) in the order geometry, colour, filter, noise, cutout. Raises ValueError for other channels."""
    if images.shape[1] not in (1, 3):
        raise ValueError(f"Image must be RGB (3 channels) or L (1 channel), not of {images.shape[1]} channels")
    if how.inverse is not None and not _all_identity(how.inverse):
        images = _moved(images, how.inverse)
    if how.colours is not None and not _all_identity(how.colours):
        images = _recoloured(images, how.colours)
    if how.bands is not None:
        images = _band_filtered(images, how.bands)
    if how.noise is not None and how.noise_seeds is not None:
        images = images + _noise(images, how.noise_seeds) * how.noise.to(images)[:, None, None, None]
    if how.cutout is not None:
        images = images * _uncut(images, how.cutout)
    return images


def _all_identity(matrices: Tensor) -> bool:
    """On the CPU. The identity changes nothing: what the two filters do cancels, for the wavelet is orthogonal."""
    return bool((matrices == torch.eye(matrices.shape[-1], dtype=matrices.dtype)).all())


@lru_cache(maxsize=1)
def _smooth() -> Factors:
    return factors_of(normalized_filter(SYM6))


def _moved(images: Tensor, inverse: Tensor) -> Tensor:
    """Mirror beyond the borders as far as needed, double the resolution, sample, and halve it again."""
    height, width = images.shape[2:]
    left, top, right, bottom = _margins(inverse, height, width)
    padded = F.pad(images, (left, right, top, bottom), mode="reflect")
    plan = plan_resample(_smooth(), (padded.shape[2], padded.shape[3]), up=2, padding=(6, 5, 6, 5), gain=4.0)
    fine = resample(padded, plan)
    shape = ((height + 2 * SMOOTH_PX) * 2, (width + 2 * SMOOTH_PX) * 2)
    theta = _to_fine_indices(height, width, left, top) @ inverse @ _from_fine_indices(height, width)
    theta = _normalizing(fine.shape[3], fine.shape[2]) @ theta @ _normalizing(shape[1], shape[0]).inverse()
    grid = F.affine_grid(theta[:, :2].to(images), [len(images), images.shape[1], *shape], align_corners=False)
    crop = 5 - 2 * SMOOTH_PX  # the filter's own padding, less what the result was made larger by
    down = plan_resample(_smooth(), shape, down=2, padding=(crop,) * 4, flip=True)
    return resample(sample_bilinear(fine, grid), down)


def _margins(inverse: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels left, top, right, bottom that the furthest corner of any result needs; a mirror gives one image."""
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = torch.tensor([[-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]], dtype=inverse.dtype)
    places = (inverse @ corners.t())[:, :2]  # (b, 2, corners)
    beyond = torch.cat([(-places).amax((0, 2)), places.amax((0, 2))])
    beyond = beyond + torch.tensor([2 * SMOOTH_PX - x, 2 * SMOOTH_PX - y] * 2, dtype=inverse.dtype)
    most = torch.tensor([width - 1, height - 1] * 2, dtype=inverse.dtype)
    left, top, right, bottom = (int(each) for each in beyond.clamp(min=0).minimum(most).ceil())
    return left, top, right, bottom


def _affine(scale: float, x: float, y: float) -> Tensor:
    return torch.tensor([[scale, 0, x], [0, scale, y], [0, 0, 1]], dtype=torch.float64)


def _from_fine_indices(height: int, width: int) -> Tensor:
    """The fine result's indices -> pixels from the centre of the result."""
    return _affine(0.5, -SMOOTH_PX - (width - 1) / 2, -SMOOTH_PX - (height - 1) / 2)


def _to_fine_indices(height: int, width: int, left: int, top: int) -> Tensor:
    """Pixels from the centre of the image -> indices of the padded image at twice the resolution."""
    return _affine(2.0, 2 * ((width - 1) / 2 + left), 2 * ((height - 1) / 2 + top))


def _normalizing(width: int, height: int) -> Tensor:
    """Indices -> -1..1 from edge to edge."""
    return torch.tensor(
        [[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]], dtype=torch.float64
    )


def _recoloured(images: Tensor, colours: Tensor) -> Tensor:
    count, channels, height, width = images.shape
    if channels == 1:  # gray: the mean of what the three colours would become
        mean = colours[:, :3].mean(1)
        factor, offset = mean[:, :3].sum(1).to(images), mean[:, 3].to(images)
        return images * factor[:, None, None, None] + offset[:, None, None, None]
    matrix = colours[:, :3].to(images)
    return torch.baddbmm(matrix[:, :, 3:], matrix[:, :, :3], images.flatten(2)).view(count, channels, height, width)


@lru_cache(maxsize=1)
def _filter_bank() -> Tensor:
    """(4, taps): octave bands from low to high, which add up to the identity."""

    def spread(taps: np.ndarray, times: int) -> np.ndarray:
        result = np.zeros((len(taps) - 1) * times + 1)
        result[::times] = taps
        return result

    low = np.array(SYM2)
    high = low * (-1.0) ** np.arange(len(low))
    low2, high2 = (np.convolve(taps, taps[::-1]) / 2 for taps in (low, high))
    bands, passed = [], np.ones(1)
    for octave in (1, 2, 4):
        bands.append(np.convolve(passed, spread(high2, octave)))
        passed = np.convolve(passed, spread(low2, octave))
    bands.append(passed)
    longest = len(passed)
    return torch.from_numpy(np.stack([np.pad(band, (longest - len(band)) // 2) for band in reversed(bands)]))


def _band_filtered(images: Tensor, factors: Tensor) -> Tensor:
    """Each image with its own filter along both axes."""
    count, channels, height, width = images.shape
    taps = (factors @ _filter_bank()).to(images)
    taps = taps.repeat_interleave(channels, 0)[:, None, None]  # (b * c, 1, 1, taps)
    border = taps.shape[-1] // 2
    planes = _mirrored(images, border).view(1, count * channels, height + 2 * border, width + 2 * border)
    planes = F.conv2d(planes, taps, groups=count * channels)
    planes = F.conv2d(planes, taps.transpose(2, 3), groups=count * channels)
    return planes.view(images.shape)


def _mirrored(images: Tensor, border: int) -> Tensor:
    """Mirrored again and again where the border is wider than the image."""
    while border > 0:
        step = min(border, images.shape[2] - 1, images.shape[3] - 1)
        images = F.pad(images, (step,) * 4, mode="reflect")
        border -= step
    return images


def _noise(images: Tensor, seeds: Tensor) -> Tensor:
    each = []
    for seed in seeds.tolist():
        generator = torch.Generator(images.device).manual_seed(seed)
        each.append(torch.randn(images.shape[1:], generator=generator, device=images.device, dtype=images.dtype))
    return torch.stack(each)


def _uncut(images: Tensor, cutout: Tensor) -> Tensor:
    """(b, 1, h, w): 0 within each square, 1 elsewhere."""
    x, y, side = (each.to(images)[:, None] for each in cutout.unbind(1))
    height, width = images.shape[2:]

    def outside(samples: int, centre: Tensor) -> Tensor:
        places = (torch.arange(samples, device=images.device, dtype=images.dtype) + 0.5) / samples
        return (places - centre).abs() >= side / 2

    mask = outside(width, x)[:, None, :] | outside(height, y)[:, :, None]
    return mask[:, None].to(images.dtype)
