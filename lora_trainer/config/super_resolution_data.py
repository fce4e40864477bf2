"""The keys of a super-resolution preset about its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lora_trainer.config.kinds import (
    AnyCase,
    Count,
    NotNegative,
    Numbers,
    Paths,
    Positive,
    Reads,
    Switch,
    Text,
    Unfit,
    Words,
)  # fmt: skip
from lora_trainer.config.setting import no_effect, setting

LOADER = "the loader's processes, queues and pinned memory are the engine's business; num_worker_per_gpu is read"


def _ratio(value: object) -> int:
    text = str(value).strip().casefold()
    if text == "auto":
        return 0
    if isinstance(value, bool) or not text.isascii() or not text.isdigit():
        raise Unfit
    return int(text)


Ratio = Annotated[
    int,
    Reads(
        '"auto" or a whole number', _ratio, {"type": ["integer", "string", "null"], "pattern": r"^\s*(auto|\d+)?\s*$"}
    ),
]
RGB = "pictures are trained on as RGB from 0 to 1"


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Where the pictures are. Without dataroot_lq the low resolution is made from the high one, on the device."""

    dataroot_gt: Paths = setting(
        (), "Folders (or .lmdb) with the high-resolution pictures.", required=True, example="datasets/train/hr"
    )
    dataroot_lq: Paths = setting(
        (), "Folders with the low-resolution pictures, one for each of dataroot_gt; none: they are made by downscaling."
    )
    meta_info: Paths = setting((), "Text files that list the pictures to take, one name a line.")
    filename_tmpl: Text = setting("{}", 'How a low-resolution file is named after its partner: "{}x4" for 0001x4.png.')
    io_backend: Annotated[Literal["disk", "lmdb"], AnyCase()] = setting(
        "disk", "What dataroot_gt and dataroot_lq are: folders, or LMDB files by tools/make_lmdb."
    )
    lq_resize_mode: Annotated[Literal["bicubic", "bilinear", "lanczos", "area", "nearest-exact"], AnyCase()] = setting(
        "bicubic", "How the low resolution is made where dataroot_lq is not given; bicubic is MATLAB's."
    )
    dataset_type: Text = setting(
        "", "traiNNer-redux's name of the data set.",
        effect=no_effect("dataroot_lq and high_order_degradation say what kind of data it is"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Crops:
    """What a step sees of a picture, and how many."""

    lq_size: Positive = setting(64, "The side of the square that is cut from the low-resolution picture, in pixels.")
    gt_size: Count = setting(0, "The same by the high-resolution picture: scale times lq_size. 0: lq_size counts.")
    batch_size_per_gpu: Positive = setting(8, "Crops per forward pass in each process.")
    accum_iter: Positive = setting(1, "Forward passes per optimizer step; their crops count as one batch.")
    use_hflip: Switch = setting(True, "Mirror half of the crops.")
    use_rot: Switch = setting(True, "Turn and mirror the crops by quarters.")
    dataset_enlarge_ratio: Ratio = setting(
        0, "How often an epoch draws each picture; auto (or 0) makes epochs of at least a thousand crops."
    )
    num_worker_per_gpu: Count = setting(
        2, "Processes that read pictures beside the training; 0 reads in a thread.", may_change=True
    )
    cache_gib: NotNegative = setting(
        4.0, "Decoded pictures up to this many GiB are kept in one file that all readers share; 0 is never.",
        may_change=True,
    )  # fmt: skip
    prefetch_mode: Text = setting("", "The loader's way.", may_change=True, effect=no_effect(LOADER))
    pin_memory: Switch = setting(True, "Pinned memory.", may_change=True, effect=no_effect(LOADER))
    persistent_workers: Switch = setting(True, "Keep the readers.", may_change=True, effect=no_effect(LOADER))
    num_prefetch_queue: Count = setting(1, "The queue's length.", may_change=True, effect=no_effect(LOADER))
    prefetch_factor: Count = setting(2, "Batches ahead.", may_change=True, effect=no_effect(LOADER))
    mean: Numbers = setting((), "Subtracted from the pictures.", effect=no_effect(RGB, (0.0, 0.0, 0.0)))
    std: Numbers = setting((), "Divides the pictures.", effect=no_effect(RGB, (1.0, 1.0, 1.0)))
    color: Text = setting("", "Train on luma only.", effect=no_effect(RGB, "rgb", "RGB"))


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixture of augmentations (MoA): now and then crops of a batch are mixed with each other."""

    use_moa: Switch = setting(False, "Mix crops.")
    moa_augs: Words = setting(
        ("none", "mixup", "cutmix", "resizemix", "cutblur"), "What a batch may get; one is drawn for each."
    )
    moa_probs: Numbers = setting((0.4, 0.084, 0.084, 0.084, 0.348), "How likely each of them is.")
    moa_debug: Switch = setting(
        False, "Save mixed crops.", may_change=True, effect=no_effect("--dry-run draws a sheet of what a step sees")
    )
    moa_debug_limit: Count = setting(
        100, "How many.", may_change=True, effect=no_effect("--dry-run draws a sheet of what a step sees")
    )


@dataclass(frozen=True, kw_only=True)
class ValidationPictures:
    """What is held out."""

    val_dataroot_gt: Paths = setting((), "Folders with the high-resolution pictures to measure on.", may_change=True)
    val_dataroot_lq: Paths = setting(
        (), "Their low-resolution partners; none: made as in the training, without degradation.", may_change=True
    )
    val_meta_info: Paths = setting((), "Text files that list the pictures to take.", may_change=True)
    val_filename_tmpl: Text = setting("{}", "As filename_tmpl.", may_change=True)
    val_io_backend: Annotated[Literal["disk", "lmdb"], AnyCase()] = setting("disk", "As io_backend.", may_change=True)
