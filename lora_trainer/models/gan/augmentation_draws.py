"""Which augmentation each image gets: geometric maps, colour matrices, factors of frequency bands, noise and cutout.

Everything is drawn on the CPU from a key for each image, and applied elsewhere (`augmentation.py`). A transformation
takes place with probability p times its own multiplier; p is that of adaptive augmentation (Karras et al. 2020a).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
from torch import Tensor

from lora_trainer.draws import torch_generator

Key: TypeAlias = Sequence[int | str]

GEOMETRY = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")
COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
IMAGE_FILTER_BANDS = 4
BAND_POWERS = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # of each band in natural pictures, from low to high
_UNIFORMS = 40  # drawn for each image; more than are used, so that a new one shifts none
_NORMALS = 20


@dataclass(frozen=True)
class AugmentOptions:
    """The probability of each transformation as a multiple of p, and its strength in the words of the field."""

    xflip: float = 1.0
    rotate90: float = 1.0
    xint: float = 1.0
    scale: float = 1.0
    rotate: float = 1.0
    aniso: float = 1.0
    xfrac: float = 1.0
    brightness: float = 1.0
    contrast: float = 1.0
    lumaflip: float = 1.0
    hue: float = 1.0
    saturation: float = 1.0
    imgfilter: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0
    xint_max: float = 0.125  # of the side
    scale_std: float = 0.2  # of the factor's logarithm to the base 2, as those below
    rotate_max: float = 1.0  # half turns
    aniso_std: float = 0.2
    xfrac_std: float = 0.125  # of the side
    brightness_std: float = 0.2
    contrast_std: float = 0.5
    hue_max: float = 1.0  # half turns
    saturation_std: float = 1.0
    imgfilter_std: float = 1.0
    noise_std: float = 0.1
    cutout_size: float = 0.5  # of the side

    @property
    def moves(self) -> bool:
        return any(getattr(self, name) > 0 for name in GEOMETRY)

    @property
    def recolours(self) -> bool:
        return any(getattr(self, name) > 0 for name in COLOUR)


BGC = AugmentOptions()  # blit, geometry, colour: what training uses


@dataclass(frozen=True)
class Augmentation:
    """What is to be done to b images; all on the CPU, in float64. None: not at all, for no image.

    `inverse` (b, 3, 3) maps a place in the result to one in the image, in pixels from the centre, x before y.
    `colours` (b, 4, 4) act on (red, green, blue, 1). `bands` (b, 4) are factors of frequency bands, `noise` (b,)
    standard deviations and `noise_seeds` (b,) where its numbers begin. `cutout` (b, 3) is a square's centre x, y and
    side, as parts of the picture, side 0 for none.
    """

    inverse: Tensor | None = None
    colours: Tensor | None = None
    bands: Tensor | None = None
    noise: Tensor | None = None
    noise_seeds: Tensor | None = None
    cutout: Tensor | None = None

    def __getitem__(self, part: slice) -> Augmentation:
        return Augmentation(
            *(None if value is None else value[part] for value in (getattr(self, f.name) for f in fields(self)))
        )


class _Numbers:
    """Random numbers of b images, column after column; every image's come from its own key."""

    def __init__(self, keys: Sequence[Key]) -> None:
        generators = [torch_generator(*key, "augmentation") for key in keys]
        each = [torch.rand(_UNIFORMS, generator=generator, dtype=torch.float64) for generator in generators]
        self._uniforms = torch.stack(each).t()
        each = [torch.randn(_NORMALS, generator=generator, dtype=torch.float64) for generator in generators]
        self._normals = torch.stack(each).t()
        self._used_uniforms = self._used_normals = 0

    def __len__(self) -> int:
        return self._uniforms.shape[1]

    def uniform(self) -> Tensor:
        self._used_uniforms += 1
        return self._uniforms[self._used_uniforms - 1]

    def normal(self) -> Tensor:
        self._used_normals += 1
        return self._normals[self._used_normals - 1]

    def half_normal(self) -> Tensor:
        return self.normal().abs()

    def takes_place(self, probability: float) -> Tensor:
        return self.uniform() < probability

    second_rotation = True


class _Percentile(_Numbers):
    """Every number at the same percentile, and everything takes place: to compare with other implementations.

    As these have it, a normal number is erfinv(2 q - 1), without the root of 2, and the second rotation stays out.
    """

    second_rotation = False

    def __init__(self, count: int, percentile: float) -> None:
        self._value = torch.full([count], percentile, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self._value)

    def uniform(self) -> Tensor:
        return self._value

    def normal(self) -> Tensor:
        return torch.erfinv(2 * self._value - 1)

    def half_normal(self) -> Tensor:
        return torch.erfinv(self._value)

    def takes_place(self, probability: float) -> Tensor:
        return torch.ones_like(self._value, dtype=torch.bool)


def draw_augmentation(options: AugmentOptions, p: float, size: tuple[int, int], keys: Sequence[Key]) -> Augmentation:
    """For one image of `size` (h, w) with each key, for instance (seed, step, position, "real")."""
    return _drawn(options, min(max(p, 0.0), 1.0), size, _Numbers(keys))


def percentile_augmentation(
    options: AugmentOptions, size: tuple[int, int], count: int, percentile: float
) -> Augmentation:
    """The same for `count` images: every number that would be drawn is its percentile, 0..1."""
    return _drawn(options, 1.0, size, _Percentile(count, percentile))


def _drawn(options: AugmentOptions, p: float, size: tuple[int, int], numbers: _Numbers) -> Augmentation:
    inverse = _geometry(options, p, size, numbers) if options.moves else None
    colours = _colours(options, p, numbers) if options.recolours else None
    bands = _bands(options, p, numbers) if options.imgfilter > 0 else None
    noise = seeds = cutout = None
    if options.noise > 0:
        seeds = (numbers.uniform() * 2**53).long()
        strength = numbers.half_normal() * options.noise_std
        noise = torch.where(numbers.takes_place(p * options.noise), strength, 0.0)
    if options.cutout > 0:
        side = torch.where(numbers.takes_place(p * options.cutout), options.cutout_size, 0.0).double()
        cutout = torch.stack([numbers.uniform(), numbers.uniform(), side], 1)
    return Augmentation(inverse, colours, bands, noise, seeds, cutout)


def _geometry(o: AugmentOptions, p: float, size: tuple[int, int], numbers: _Numbers) -> Tensor:
    """The inverse of the product of all maps: the inverse of each later one is multiplied from the right."""
    height, width = size
    result = torch.eye(3, dtype=torch.float64).repeat(len(numbers), 1, 1)

    def then(probability: float, inverse: Callable[[], Tensor], take: bool = True) -> None:
        nonlocal result
        if probability <= 0:
            return
        map, takes = inverse(), numbers.takes_place(probability)
        if take:
            result = result @ torch.where(takes[:, None, None], map, torch.eye(3, dtype=torch.float64))

    def anisotropic() -> Tensor:
        factor = torch.exp2(numbers.normal() * o.aniso_std)
        return _scaling(1 / factor, factor)

    def whole_shift() -> Tensor:
        x, y = ((numbers.uniform() * 2 - 1) * o.xint_max for _ in range(2))
        return _shift(-(x * width).round(), -(y * height).round())

    turn = 1 - math.sqrt(1 - min(p * o.rotate, 1.0))  # twice with this probability is once with p
    then(p * o.xflip, lambda: _scaling(1 - 2 * (numbers.uniform() * 2).floor(), 1.0))
    then(p * o.rotate90, lambda: _rotation(math.pi / 2 * (numbers.uniform() * 4).floor()))
    then(p * o.xint, whole_shift)
    then(p * o.scale, lambda: _scaling(*[torch.exp2(-numbers.normal() * o.scale_std)] * 2))
    then(turn, lambda: _rotation((numbers.uniform() * 2 - 1) * math.pi * o.rotate_max))
    then(p * o.aniso, anisotropic)
    then(turn, lambda: _rotation((numbers.uniform() * 2 - 1) * math.pi * o.rotate_max), numbers.second_rotation)
    then(
        p * o.xfrac,
        lambda: _shift(-numbers.normal() * o.xfrac_std * width, -numbers.normal() * o.xfrac_std * height),
    )
    return result


def _shift(x: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return torch.stack([one, zero, x, zero, one, y, zero, zero, one], 1).view(-1, 3, 3)


def _scaling(x: Tensor, y: Tensor | float) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return torch.stack([x, zero, zero, zero, one * y, zero, zero, zero, one], 1).view(-1, 3, 3)


def _rotation(angle: Tensor) -> Tensor:
    cosine, sine = angle.cos(), angle.sin()
    one, zero = torch.ones_like(sine), torch.zeros_like(sine)
    return torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], 1).view(-1, 3, 3)


def _colours(o: AugmentOptions, p: float, numbers: _Numbers) -> Tensor:
    """Each later matrix is multiplied from the left."""
    eye = torch.eye(4, dtype=torch.float64)
    gray = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64) / math.sqrt(3)
    along = torch.outer(gray, gray)  # what an image has of brightness
    result = eye.repeat(len(numbers), 1, 1)

    def then(multiplier: float, matrix: Callable[[], Tensor]) -> None:
        nonlocal result
        if multiplier > 0:
            map, takes = matrix(), numbers.takes_place(p * multiplier)
            result = torch.where(takes[:, None, None], map, eye) @ result

    def brightness() -> Tensor:
        offset = numbers.normal() * o.brightness_std
        return eye + offset[:, None, None] * torch.outer(eye.new_tensor([1.0, 1.0, 1.0, 0.0]), eye[3])

    def contrast() -> Tensor:
        factor = torch.exp2(numbers.normal() * o.contrast_std)[:, None, None]
        return torch.where(torch.outer(1 - eye[3], 1 - eye[3]) > 0, eye * factor, eye)

    def saturation() -> Tensor:
        return along + (eye - along) * torch.exp2(numbers.normal() * o.saturation_std)[:, None, None]

    then(o.brightness, brightness)
    then(o.contrast, contrast)
    then(o.lumaflip, lambda: eye - 2 * along * (numbers.uniform() * 2).floor()[:, None, None])
    then(o.hue, lambda: _turn_about_gray((numbers.uniform() * 2 - 1) * math.pi * o.hue_max))
    then(o.saturation, saturation)
    return result


def _turn_about_gray(angle: Tensor) -> Tensor:
    """Rodrigues' rotation about (1, 1, 1) / sqrt 3."""
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], dtype=torch.float64) / math.sqrt(3)
    eye = torch.eye(3, dtype=torch.float64)
    turn = cosine * eye + sine * cross + (1 - cosine) / 3
    result = torch.eye(4, dtype=torch.float64).repeat(len(angle), 1, 1)
    result[:, :3, :3] = turn
    return result


def _bands(o: AugmentOptions, p: float, numbers: _Numbers) -> Tensor:
    """Factors of the four frequency bands: each is drawn alone, and all together are brought back to the same power."""
    powers = torch.tensor(BAND_POWERS, dtype=torch.float64)
    result = torch.ones(len(numbers), IMAGE_FILTER_BANDS, dtype=torch.float64)
    for band in range(IMAGE_FILTER_BANDS):
        factor = torch.exp2(numbers.normal() * o.imgfilter_std)
        factor = torch.where(numbers.takes_place(p * o.imgfilter), factor, 1.0)
        own = torch.ones(len(factor), IMAGE_FILTER_BANDS, dtype=torch.float64)
        own[:, band] = factor
        result = result * own / (powers * own.square()).sum(1, keepdim=True).sqrt()
    return result
