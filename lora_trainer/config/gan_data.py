"""The keys of a GAN's preset about its images and how they are varied for the discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lora_trainer.config.kinds import AnyCase, Count, PathText, Share, Switch
from lora_trainer.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class Images:
    """What is learnt from."""

    data: PathText = setting(
        "",
        "A folder or a zip file of square images of one size, with labels in its dataset.json; tools/dataset_tool.py "
        "makes one.",
        required=True,
        example="datasets/afhqv2-512x512.zip",
    )
    cond: Switch = setting(False, "Learn the classes too: the labels of dataset.json are given to both networks.")
    mirror: Switch = setting(
        False,
        "Every image counts twice, once mirrored. For subjects without a left and a right; not for letters.",
    )
    workers: Count = setting(
        3,
        "Processes that read and decode images, at most one for each CPU core; 0 reads in a thread.",
        may_change=True,
    )


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How what the discriminator sees, real or not, is varied, so that it does not learn few images by heart."""

    aug: Annotated[Literal["ada", "fixed", "noaug"], AnyCase()] = setting(
        "ada",
        "ada finds by itself how strongly; fixed is p; noaug is not at all, for 100000 images and more. With r3gan "
        "fixed rises to p by decay_kimg.",
    )
    p: Share = setting(0.2, "fixed: how likely each of the variations is.")
    target: Share = setting(
        0.6, "ada: the mean sign of what the discriminator says of real images that it aims at; higher is weaker."
    )
