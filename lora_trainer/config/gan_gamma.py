"""Which R1 weight to begin with, where a preset leaves `gamma` out: by the config, the resolution and the batch."""

from __future__ import annotations

import math

# gamma = factor * resolution ** 2 / batch
ALIAS_FREE_FACTOR = 1 / 1024  # StyleGAN3 and CREPS: 0.5, 2, 8 and 32 at 128, 256, 512 and 1024 px with batch 32
STYLEGAN2_FACTOR = 0.0002  # StyleGAN2-ADA (Karras et al. 2020a)
USUAL_BATCH = 32  # of the published tables
FACTORS = {
    "stylegan2": STYLEGAN2_FACTOR,
    "stylegan3-t": ALIAS_FREE_FACTOR,
    "stylegan3-r": ALIAS_FREE_FACTOR,
    "creps": ALIAS_FREE_FACTOR,
}
# R3GAN (Huang et al. 2024): FFHQ at 64 and 256 px; a power law goes through both
R3GAN_SMALL_PX, R3GAN_SMALL_GAMMA = 64, 2.0
R3GAN_LARGE_PX, R3GAN_LARGE_GAMMA = 256, 150.0


def suggested_gamma(cfg: str, resolution: int, batch: int) -> float:
    """A starting point, to two digits: then twice and four times as much are worth trying, and half and a quarter.

    Of r3gan it is the weight of the first steps, whatever the batch. Raises KeyError for another cfg.
    """
    if cfg == "r3gan":
        power = math.log(R3GAN_LARGE_GAMMA / R3GAN_SMALL_GAMMA, R3GAN_LARGE_PX / R3GAN_SMALL_PX)
        return _two_digits(R3GAN_SMALL_GAMMA * (resolution / R3GAN_SMALL_PX) ** power)
    return _two_digits(FACTORS[cfg] * resolution**2 / batch)


def missing_gamma(cfg: str, resolution: int, batch: int) -> str:
    """What to say of a preset without `gamma`, once the resolution of its data is known."""
    gamma, usual = (suggested_gamma(cfg, resolution, images) for images in (batch, USUAL_BATCH))
    other = f", {usual:g} with {USUAL_BATCH}" if usual != gamma else ""
    return (
        f"missing; write it, for example {gamma:g}, the usual value of {cfg} at {resolution} px with a batch of "
        f"{batch}{other} (R1's weight, which grows with the square of the resolution; half, twice and four times as "
        "much are worth trying)"
    )


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")
