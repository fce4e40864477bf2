"""The keys of a GAN's preset about its folder, its files, and measuring how good the images are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from lora_trainer.config import common
from lora_trainer.config.gan_training import Kimg
from lora_trainer.config.kinds import Count, FileName, PathText, Reads, Unfit
from lora_trainer.config.setting import setting
from lora_trainer.errors import did_you_mean

NO_METRICS = "none"
USUAL_METRICS = ("fid50k_full",)
STAND_IN = "stand-in"
INCEPTION, VGG, NO_NETWORK = "inception", "vgg", ""
METRICS: Mapping[str, str] = {  # and the network each needs
    "fid50k_full": INCEPTION, "kid50k_full": INCEPTION, "pr50k3_full": VGG, "ppl2_wend": VGG,
    "eqt50k_int": NO_NETWORK, "eqt50k_frac": NO_NETWORK, "eqr50k": NO_NETWORK,
    "fid50k": INCEPTION, "kid50k": INCEPTION, "pr50k3": VGG, "is50k": INCEPTION,
}  # fmt: skip


def _metrics(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [] if value.strip().casefold() == NO_METRICS else value.split(",")
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise Unfit
    names = tuple(dict.fromkeys(name.strip().casefold() for name in value))
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        hint = did_you_mean(unknown[0], METRICS)
        raise Unfit(f"there is no metric {unknown[0]}; write none, or any of {', '.join(METRICS)}{hint}")
    return names


MaybeMetrics = Annotated[
    Any,
    Reads(
        'names in a list or with commas, or "none"',
        _metrics,
        {"type": ["array", "string", "null"], "items": {"enum": list(METRICS)}},
    ),
]


@dataclass(frozen=True, kw_only=True)
class Run(common.Run):
    """What is trained, and where the results go."""

    output_dir: PathText = setting(
        "",
        "The folder of the run: snapshots, images, metrics, checkpoint and logs are written there. Without it, a "
        "folder in outdir that is named after cfg, data, batch, gamma and desc.",
        example="training-runs/my_run",
        may_change=True,
    )
    output_name: FileName = setting(
        "network-snapshot",
        "The name of the snapshots, before the number of kimg: network-snapshot-000200.safetensors.",
        may_change=True,
    )
    outdir: PathText = setting(
        "",
        "The folder of all runs; read where output_dir is not given.",
        example="training-runs",
        may_change=True,
    )
    desc: FileName = setting(
        "", "The end of the run's folder in outdir, where output_dir is not given.", may_change=True
    )


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The status line and the files of a run."""

    tick: Kimg = setting(4.0, "Kimg between two status lines.", may_change=True)
    snap: Count = setting(
        50,
        "Ticks between two snapshots, each with a sheet of images and its metrics; 0 is only at the end.",
        may_change=True,
    )


@dataclass(frozen=True, kw_only=True)
class Checkpoints(common.Checkpoints):
    """When the rolling checkpoint is written, besides that of each snapshot; the same command continues from it."""

    checkpoint_every_n_epochs: Count = setting(
        0, "Times that all images were shown between two checkpoints; 0 is never.", may_change=True
    )


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """How good the images are."""

    metrics: MaybeMetrics = setting(
        None,
        "What is measured at each snapshot: fid50k_full, kid50k_full, pr50k3_full, is50k, ppl2_wend, eqt50k_int, "
        "eqt50k_frac, eqr50k, or none. Not set, it is fid50k_full if inception is given.",
        may_change=True,
    )
    inception: PathText = setting(
        "",
        "The Inception network that FID, KID and IS see with: the path of inception-2015-12-05.pt. Without it, it is "
        "looked for among torch's downloads. stand-in is a small network of ours, whose numbers can be compared with "
        "each other alone.",
        may_change=True,
    )
    vgg: PathText = setting(
        "",
        "The VGG network that precision, recall and PPL see with: the path of vgg16.pt. Without it, it is looked for "
        "among torch's downloads. stand-in is a small network of ours, whose numbers can be compared with each other "
        "alone.",
        may_change=True,
    )
    metric_images: Count = setting(
        0,
        "Images that are drawn for a metric, in place of the 50000 that its name says; fewer make FID larger. 0 is as "
        "its name says.",
        may_change=True,
    )
    metric_cache: PathText = setting(
        "",
        "The folder in which what the networks see in the real images is kept for later runs; without it, metrics in "
        "output_dir.",
        may_change=True,
    )
