"""What each `cfg` of a GAN fixes or chooses where the preset says nothing: rates, penalties, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Recipe:
    """Rates are those at the first step; a share of 1 for the last step means that nothing changes.

    `lazy_*` are how many steps lie between two penalties; a penalty's weight is multiplied by them. `style_mixing` is
    a probability, `blurs` a discriminator that sees blurred images at first.
    """

    generator_rate: float
    discriminator_rate: float = 0.002
    path_length_weight: float = 0.0
    style_mixing: float = 0.0
    lazy_path_length: int = 4
    lazy_gradient_penalty: int = 16
    blurs: bool = False
    is_relativistic: bool = False
    has_minibatch_deviation: bool = True
    first_beta2: float = 0.99
    last_beta2: float = 0.99
    last_rate_share: float = 1.0
    last_gamma_share: float = 1.0
    first_ema_kimg: float | None = None
    last_ema_kimg: float | None = None  # None: by the batch


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "stylegan2": Recipe(0.002, path_length_weight=2.0, style_mixing=0.9),
        "stylegan3-t": Recipe(0.0025),
        "stylegan3-r": Recipe(0.0025, blurs=True),
        "creps": Recipe(0.002, path_length_weight=2.0),
        "r3gan": Recipe(
            0.0002,
            discriminator_rate=0.0002,
            lazy_gradient_penalty=1,
            is_relativistic=True,
            has_minibatch_deviation=False,
            first_beta2=0.9,
            last_beta2=0.99,
            last_rate_share=0.25,
            last_gamma_share=0.1,
            first_ema_kimg=0.0,
            last_ema_kimg=500.0,
        ),
    }
)
