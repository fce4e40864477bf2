"""Which timestep a sample is trained at."""

from __future__ import annotations

from lora_trainer.draws import draw_key
from lora_trainer.losses.noise_schedule import TIMESTEPS


def uniform_timestep(minimum: int, maximum: int, *key: int | str) -> int:
    """A timestep in [minimum, maximum), each as likely as the other, as a function of the key.

    As in sd-scripts two equal numbers mean that one timestep; the last that exists is 999.
    """
    if not 0 <= minimum <= maximum <= TIMESTEPS:
        raise ValueError(f"timesteps from {minimum} to {maximum} are not within 0 to {TIMESTEPS}")
    if minimum == maximum:
        return min(minimum, TIMESTEPS - 1)
    return minimum + draw_key(*key) % (maximum - minimum)
