"""The networks by the names that presets use for `cfg`, in the sizes that `cbase`, `cmax` and `map_depth` give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lora_trainer.models.gan import creps, r3gan, stylegan2, stylegan3
from lora_trainer.models.gan.discriminator import Discriminator
from lora_trainer.models.gan.half_precision import HalfPrecision
from lora_trainer.models.gan.mapping import Generator

Z_DIM = W_DIM = 512


@dataclass(frozen=True)
class Architecture:
    """What a `cfg` builds: the synthesis network, its fixed options, and the usual depth of the mapping."""

    synthesis: type[nn.Module]
    map_depth: int
    widening: int = 1  # of cbase and cmax
    options: Mapping[str, Any] = field(default_factory=dict)


ARCHITECTURES: Mapping[str, Architecture] = {
    "stylegan2": Architecture(stylegan2.SynthesisNetwork, map_depth=8),
    "stylegan3-t": Architecture(stylegan3.SynthesisNetwork, map_depth=2),
    "stylegan3-r": Architecture(stylegan3.SynthesisNetwork, map_depth=2, widening=2, options={"radial": True}),
    "creps": Architecture(creps.SynthesisNetwork, map_depth=8),
}
R3GAN = "r3gan"  # which has no mapping network, and a discriminator of its own
CFGS = (*ARCHITECTURES, R3GAN)


@dataclass(frozen=True)
class GanSize:
    """What both networks have in common. `cbase` and `cmax` as in a preset; StyleGAN3-R's generator doubles them.

    `clamp` bounds the activations, None in full precision.
    """

    resolution: int
    img_channels: int = 3
    c_dim: int = 0
    cbase: int = 32768
    cmax: int = 512
    clamp: float | None = 256.0
    half: HalfPrecision = HalfPrecision()  # noqa: RUF009 - frozen


def build_generator(
    cfg: str,
    size: GanSize,
    *,
    seed: int = 0,
    map_depth: int | None = None,
    dims: tuple[int, int] = (Z_DIM, W_DIM),
    **options: Any,
) -> Generator:
    """With fresh weights that follow from the seed. `dims` are those of z and w; `options` are the synthesis network's.

    A StyleGAN3 trainer gives `magnitude_decay` 0.5 ** (batch / 20000). Raises KeyError for r3gan.
    """
    kind = ARCHITECTURES[cfg]
    z_dim, w_dim = dims
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
        synthesis = kind.synthesis(
            w_dim,
            size.resolution,
            size.img_channels,
            cbase=size.cbase * kind.widening,
            cmax=size.cmax * kind.widening,
            clamp=size.clamp,
            half=size.half,
            **{**kind.options, **options},
        )
        return Generator(synthesis, z_dim, size.c_dim, w_dim, map_depth or kind.map_depth)


def build_r3gan(size: GanSize, *, seed: int = 0) -> tuple[r3gan.Generator, r3gan.Discriminator]:
    """Both networks with fresh weights that follow from the seed. Activations are not clamped."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
        widths: dict[str, Any] = {"cbase": size.cbase, "cmax": size.cmax, "half": size.half}
        mapping = r3gan.Latent(r3gan.Z_DIM, size.c_dim)
        w_dim = r3gan.latent_dim(r3gan.Z_DIM, size.c_dim)
        synthesis = r3gan.SynthesisNetwork(w_dim, size.resolution, size.img_channels, **widths)
        discriminator = r3gan.Discriminator(size.resolution, size.img_channels, size.c_dim, **widths)
        return r3gan.Generator(synthesis, mapping), discriminator


def build_discriminator(size: GanSize, *, seed: int = 0, mbstd_group: int = 4, freezed: int = 0) -> Discriminator:
    """With fresh weights that follow from the seed; the first `freezed` layers are not trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
        return Discriminator(
            size.resolution,
            size.img_channels,
            size.c_dim,
            cbase=size.cbase,
            cmax=size.cmax,
            mbstd_group=mbstd_group,
            freezed=freezed,
            clamp=size.clamp,
            half=size.half,
        )
