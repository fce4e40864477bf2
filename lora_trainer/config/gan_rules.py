"""What the keys of a GAN's preset mean together: contradictions, and keys that another key makes idle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lora_trainer.config.findings import Finding, Rule, error, inert, note
from lora_trainer.config.gan_sections import run_folder
from lora_trainer.config.tracker_rules import trackers

if TYPE_CHECKING:
    from lora_trainer.config.gan import GanPreset

Findings = Iterator[Finding]

ADDRESSES = ("http://", "https://", "ftp://")


def networks(preset: GanPreset) -> Findings:
    if preset.cfg == "r3gan":
        yield inert("r3gan has no mapping network", "map_depth")
        yield inert("r3gan does not compare the images of a pass", "mbstd_group")
    if preset.resume.casefold().startswith(ADDRESSES):
        yield error("nothing is downloaded; save the snapshot and write the path of the file", "resume")
    if preset.freezed and not preset.resume:
        yield note("the frozen layers stay random, as resume gives no snapshot", "freezed")


def augmentation(preset: GanPreset) -> Findings:
    if preset.aug != "ada":
        yield inert(f"aug is {preset.aug}", "target")
    if preset.aug != "fixed":
        yield inert(f"aug is {preset.aug}; p is for fixed", "p")


def penalties(preset: GanPreset) -> Findings:
    if preset.gamma == 0:
        yield note("0 leaves R1 out; nothing holds the discriminator then, and training tends to fail", "gamma")
    if not preset.recipe.path_length_weight:
        yield inert(f"{preset.cfg} has no path length regularisation", "pl_weight", "pl_start_kimg")
    elif not preset.path_length_weight:
        yield inert("pl_weight is 0", "pl_start_kimg")
    elif preset.pl_start_kimg >= preset.kimg:
        yield inert(f"the training ends at {preset.kimg:g} kimg", "pl_start_kimg")
    if preset.recipe.last_rate_share == 1:
        yield inert(f"{preset.cfg} keeps its rates", "decay_kimg")


def precision(preset: GanPreset) -> Findings:
    if preset.fp32:
        yield inert("fp32 is on", "mixed_precision")
    if not preset.cfg.startswith("stylegan3"):
        yield inert(f"{preset.cfg} has no filtered leaky ReLU", "fused_filtered_lrelu")
    elif preset.number_format == "no":
        yield inert("everything is in 32 bits", "fused_filtered_lrelu")


def folder(preset: GanPreset) -> Findings:
    if not preset.output_dir:
        text = "missing; write it, for example training-runs/my_run, or outdir, the folder of all runs"
        yield error(text, "output_dir", "outdir")
        return
    gamma = "" if preset.gamma is None else str(preset.gamma)
    named = {"cfg": preset.cfg, "data": preset.data, "batch": str(preset.batch), "gamma": gamma, "desc": preset.desc}
    if preset.output_dir != run_folder(preset.outdir, **named):
        yield inert("output_dir is given", "outdir", "desc")


def measuring(preset: GanPreset) -> Findings:
    if preset.metrics is None and not preset.inception:
        yield note(
            "none are measured; fid50k_full, the usual one, needs a network: give its file in inception", "metrics"
        )
    if not preset.measured:
        yield inert("no metrics are measured", "inception", "vgg", "metric_images", "metric_cache")
        return
    for key in ("inception", "vgg"):
        if key not in preset.metric_networks:
            yield inert(f"no metric of {', '.join(preset.measured)} needs it", key)
        if getattr(preset, key).casefold().startswith(ADDRESSES):
            yield error("nothing is downloaded; save the network and write the path of the file", key)


GAN_RULES: tuple[Rule, ...] = (
    networks, augmentation, penalties, precision, folder, measuring, trackers,
)  # fmt: skip
