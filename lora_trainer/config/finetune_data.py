"""The keys of a finetune preset about pictures, captions and the batches they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le, MultipleOf

from lora_trainer.config.kinds import Count, PathText, Percent, Share, Switch, Whole
from lora_trainer.config.setting import setting

Batch = Annotated[Whole, Ge(1), Le(4096)]  # missing pictures are filled up with duplicates, which are listed


@dataclass(frozen=True, kw_only=True)
class Data:
    """The pictures, and how many of them make a step."""

    data_root: PathText = setting(
        "",
        "The folder of the pictures, with all folders in it, or a .json file that lists them. A caption is the .txt, "
        ".caption, .yml or .yaml file beside the picture, or the file's name up to the first underscore. A folder's "
        "settings are local.yaml, or multiply.txt, cond_dropout.txt, flip_p.txt, batch_id.txt, loss_scale.txt and "
        "shuffle_tags.txt; global.yaml counts for the folders in it too.",
        required=True,
        example="input",
    )
    resolution: Annotated[Whole, Ge(64), Le(2048), MultipleOf(64)] = setting(
        512, "The area that is trained at, as the side of a square; each picture gets a shape of about this area."
    )
    batch_size: Batch = setting(2, "Pictures of a forward pass, for each process.")
    grad_accum: Batch = setting(
        1, "Passes whose gradients are averaged into one step. A step has pictures of one shape."
    )
    flip_p: Share = setting(0.0, "The probability that a picture is mirrored.")
    crop_jitter: Share = setting(
        0.02,
        "A picture is enlarged by chance by up to this share, and cut where chance says, rather in the middle than at "
        "an edge; 0 always cuts around the middle.",
    )
    write_schedule: Switch = setting(
        False,
        "Write for every epoch which picture is in which step, with which shape, into the run's folder: "
        "ep9_batch_schedule.txt.",
        may_change=True,
    )
    rated_dataset: Switch = setting(
        False, "Each epoch draws fewer pictures than the one before, those with a high rating rather than others."
    )
    rated_dataset_target_dropout_percent: Percent = setting(
        50.0, "rated_dataset: the percent of the pictures that the epochs come down to in the end."
    )


@dataclass(frozen=True, kw_only=True)
class Captions:
    """What becomes of a caption on the way."""

    cond_dropout: Share = setting(
        0.04, "The probability that a picture is trained without its caption; a folder may have its own."
    )
    shuffle_tags: Switch = setting(
        False,
        "Put the parts of a caption between commas in another order in each epoch; the first part stays the first.",
    )
    keep_tags: Count = setting(0, "shuffle_tags: how many parts after the first stay where they are too.")


@dataclass(frozen=True, kw_only=True)
class FromFiles:
    """Files whose content becomes keys of the preset. A path is looked for beside the preset, then as it stands."""

    optimizer_config: PathText = setting(
        "",
        "A JSON file of optimizer settings: base, text_encoder_overrides and text_encoder_freezing. What the preset "
        "itself says comes before it.",
        may_change=True,
    )
    validation_config: PathText = setting(
        "",
        "A JSON file of the keys that are listed under validation; every_n_epochs, seed and batch_size get a val_.",
        may_change=True,
    )
