"""The keys of a GAN's preset about its two networks and the weights that they start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lora_trainer.config.kinds import AnyCase, Count, PathText, Positive
from lora_trainer.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What is built. The sizes are chosen by the resolution of the data, times these."""

    cfg: Annotated[Literal["stylegan2", "stylegan3-t", "stylegan3-r", "creps", "r3gan"], AnyCase()] = setting(
        "stylegan3-t",
        "The networks and their way of training: stylegan2; stylegan3-t and stylegan3-r, whose images move and, of r, "
        "turn with their features; creps, which draws at any size; r3gan, a plain modern network.",
        required=True,
        example="stylegan3-t",
    )
    cbase: Positive = setting(
        32768, "Channels times resolution of a layer, up to cmax; 16384 is the usual half, faster and a little worse."
    )
    cmax: Positive = setting(512, "The most channels a layer has.")
    map_depth: Count = setting(
        0,
        "Layers of the mapping network; 0 is the usual number, 2 for stylegan3 and 8 for stylegan2 and creps.",
        old_names={"map-depth": {}},
    )
    mbstd_group: Positive = setting(
        4,
        "Images whose differences the discriminator is shown together; what passes it at a time is a multiple of it.",
        old_names={"mbstd-group": {}},
    )


@dataclass(frozen=True, kw_only=True)
class Start:
    """The weights at the first step."""

    resume: PathText = setting(
        "",
        "Start from the weights of a snapshot: one of ours or an official .pkl file. It must be of the same cfg, size "
        "and widths. Not needed after an interruption: the same command goes on by itself.",
    )
    freezed: Count = setting(
        0,
        "Layers of the discriminator, from the finest on, that are not trained; with resume 10 and 13 are worth a try.",
    )
