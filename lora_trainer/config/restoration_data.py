"""The keys of a restoration preset about its pictures: trained ones, what a step sees of them, and held-out ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, MultipleOf

from lora_trainer.config.kinds import (
    AnyCase,
    Count,
    NotNegative,
    Paths,
    PathText,
    Positive,
    Share,
    Switch,
    Text,
    Whole,
    Words,
)  # fmt: skip
from lora_trainer.config.setting import no_effect, setting

PROMPT = "high quality, sharp details"


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Where the pictures are: pairs of a bad and a good one, or good ones alone from which the bad ones are made."""

    train_dir: Paths = setting(
        (),
        "Folders with a folder for each kind of degradation, with the bad pictures in its LQ and the good ones, under "
        "the same names, in its GT: train_dir/Rain/LQ/1.jpg and train_dir/Rain/GT/1.jpg.",
        example="data/train",
    )
    train_types: Words = setting((), "The kinds of degradation that are taken from train_dir; none: all there are.")
    file_list: Paths = setting(
        (),
        "Files .parquet or .csv with a row for each pair: lq_path, gt_path, prompt. With high_order_degradation the "
        "good pictures of it are taken.",
        example="data/train.parquet",
    )
    dataroot_gt: Paths = setting(
        (), "Folders with good pictures alone; high_order_degradation makes the bad ones.", example="data/photos"
    )
    lq_key: Text = setting("lq_path", "file_list: the column of the bad pictures.")
    gt_key: Text = setting("gt_path", "file_list: the column of the good pictures.")
    prompt_key: Text = setting("prompt", "file_list: the column of the prompts, which may be missing.")
    image_path_prefix: PathText = setting(
        "", "file_list: the folder that relative paths in it start from; without it, the list's own."
    )
    prompt: Text = setting(
        PROMPT, "The prompt of pictures that have none of their own; an empty text is an empty prompt.", blank=""
    )
    use_filename_as_prompt: Switch = setting(
        False, "Their prompt is the name of their file instead, with blanks for underscores: a_red_house.png."
    )
    p_empty_prompt: Share = setting(0.0, "How often a picture is shown with an empty prompt.")
    return_file_name: Switch = setting(
        False, "Pass on the names of files.", effect=no_effect("messages name files in any case")
    )


@dataclass(frozen=True, kw_only=True)
class Crops:
    """What a step sees of a picture, and how many."""

    out_size: Annotated[Whole, Ge(64), MultipleOf(8)] = setting(
        512, "The side of the square that is trained on, in pixels."
    )
    crop_type: Annotated[Literal["none", "center", "random"], AnyCase()] = setting(
        "random",
        "How the square comes from a picture: random and center cut it out, of a picture that is enlarged first where "
        "it is too small; none makes a large one smaller first, to see as much of it as there is without squashing.",
    )
    use_hflip: Switch = setting(True, "Mirror half of the pairs.")
    use_rot: Switch = setting(True, "Turn and mirror the pairs by quarters.")
    batch_size: Positive = setting(4, "Pairs per forward pass in each process.")
    dataloader_num_workers: Count = setting(
        4, "Processes that read pictures beside the training; 0 reads in a thread.", may_change=True
    )
    cache_gib: NotNegative = setting(
        4.0, "Decoded pictures up to this many GiB are kept in one file that all readers share; 0 is never.",
        may_change=True,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ValidationPictures:
    """What is held out."""

    val_dir: PathText = setting(
        "", "A folder with held-out pairs, laid out like train_dir; without it, nothing is measured.", may_change=True
    )
    degradation_types: Words = setting(
        (),
        "The folders in val_dir that are measured, such as Blur, Haze, Lowlight, Rain, Snow; none: all there are.",
        may_change=True,
    )
    num_samples_per_type: Count = setting(
        0, "Pairs that are measured of each type, the first by name; 0 is all.", may_change=True
    )
    val_batch_size: Positive = setting(1, "Pairs that are restored at a time.", may_change=True)
    val_prompt: Text = setting(
        PROMPT, "The prompt of held-out pictures; an empty text is an empty prompt.", blank="", may_change=True
    )
