"""What a super-resolution preset's keys have to say to each other."""

from __future__ import annotations

from collections.abc import Iterator

from lora_trainer.config.findings import Finding, Rule, error, inert, note
from lora_trainer.config.setting import keys_of
from lora_trainer.config.super_resolution import SuperResolutionPreset
from lora_trainer.config.super_resolution_degradation import (
    Degradation,
    FirstDegradation,
    LastDegradation,
    SecondDegradation,
)  # fmt: skip
from lora_trainer.config.tracker_rules import trackers

Preset = SuperResolutionPreset
AUGMENTATIONS = ("none", "mixup", "cutmix", "resizemix", "cutblur", "downup", "up")

OWN_SWITCHES = {"high_order_degradation", "dataroot_lq_prob"}


def sizes(preset: Preset) -> Iterator[Finding]:
    if preset.gt_size and preset.gt_size % preset.scale:
        yield error(
            f"{preset.gt_size} is not a multiple of scale {preset.scale}; write lq_size instead, which it is "
            f"{preset.gt_size // preset.scale} of",
            "gt_size", "scale",
        )  # fmt: skip
    if preset.gt_size and preset.lq_size not in (64, preset.lq_px):
        yield error(f"says another size than lq_size: {preset.lq_px} and {preset.lq_size}", "gt_size", "lq_size")


def weights(preset: Preset) -> Iterator[Finding]:
    for loss in preset.losses:
        weight = loss.options.get("loss_weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            yield error(f"the loss_weight of {loss.type} is {weight!r}; write a number", "losses")
    if not preset.active_losses:
        yield error("every loss has the weight 0, so nothing would be learnt; give one of them a weight", "losses")


def adversary(preset: Preset) -> Iterator[Finding]:
    if preset.gan_loss is not None and not preset.network_d.type:
        yield error(
            'ganloss needs a discriminator; add "network_d": {"type": "dunet"}, or give it the weight 0', "losses"
        )
    if preset.gan_loss is None:
        reason = "there is no ganloss with a weight, so there is no discriminator"
        yield inert(
            reason, "network_d", "optim_d", "pretrain_network_d", "param_key_d", "strict_load_d", "net_d_iters",
            "net_d_init_iters", "adaptive_d", "adaptive_d_ema_decay", "adaptive_d_threshold",
        )  # fmt: skip
    elif not preset.adaptive_d:
        yield inert("adaptive_d is false", "adaptive_d_ema_decay", "adaptive_d_threshold")
    if preset.gan_loss is not None and not preset.pixel_losses:
        yield note("ganloss alone makes pictures that no longer follow the original", "losses")


def degradations(preset: Preset) -> Iterator[Finding]:
    groups = (Degradation, FirstDegradation, SecondDegradation, LastDegradation)
    names = [key for group in groups for key in keys_of(group) if key not in OWN_SWITCHES]
    if not preset.high_order_degradation:
        yield inert("high_order_degradation is false", *names, "dataroot_lq_prob")
        return
    if preset.dataroot_lq and not preset.dataroot_lq_prob:
        yield inert("high_order_degradation makes the low resolution; dataroot_lq_prob is 0", "dataroot_lq")
    if preset.dataroot_lq_prob and not preset.dataroot_lq:
        yield error("there is no dataroot_lq to take pictures from", "dataroot_lq_prob")
    if not preset.lq_usm:
        yield inert("lq_usm is false", "lq_usm_radius_range")


def pictures(preset: Preset) -> Iterator[Finding]:
    if preset.dataroot_lq and len(preset.dataroot_lq) != len(preset.dataroot_gt):
        yield error(
            f"{len(preset.dataroot_lq)} folders for the {len(preset.dataroot_gt)} of dataroot_gt; give one for each",
            "dataroot_lq",
        )
    if preset.dataroot_lq and not preset.high_order_degradation:
        yield inert("dataroot_lq gives the low resolution", "lq_resize_mode")
    if not preset.dataroot_lq:
        yield inert("there is no dataroot_lq", "filename_tmpl")
    if preset.val_dataroot_lq and len(preset.val_dataroot_lq) != len(preset.val_dataroot_gt):
        yield error(
            f"{len(preset.val_dataroot_lq)} folders for the {len(preset.val_dataroot_gt)} of val_dataroot_gt",
            "val_dataroot_lq",
        )
    if preset.scale == 1 and not preset.dataroot_lq and not preset.high_order_degradation:
        yield error(
            "with scale 1 the input would be the result; give dataroot_lq, or high_order_degradation true", "scale"
        )
    if preset.use_moa and len(preset.moa_augs) != len(preset.moa_probs):
        yield error(
            f"{len(preset.moa_probs)} numbers for {len(preset.moa_augs)} augmentations", "moa_probs", "moa_augs"
        )
    unknown = [name for name in preset.moa_augs if name.casefold() not in AUGMENTATIONS]
    if preset.use_moa and unknown:
        yield error(f"there is no {', '.join(unknown)}; there is {', '.join(AUGMENTATIONS)}", "moa_augs")
    if preset.use_moa and preset.batch_size_per_gpu == 1:
        yield note("crops are mixed within a forward pass; with one crop there is nothing to mix it with", "use_moa")
    if not preset.use_moa:
        yield inert("use_moa is false", "moa_augs", "moa_probs")


def measuring(preset: Preset) -> Iterator[Finding]:
    own = [
        "val_freq", "save_img", "metrics_enabled", "metrics", "save_best", "val_crop_px", "tile_size", "tile_overlap",
        "val_dataroot_gt", "val_dataroot_lq", "val_meta_info", "val_filename_tmpl", "val_io_backend",
    ]  # fmt: skip
    if preset.val_enabled and not preset.val_dataroot_gt:
        yield error("needs pictures to measure on; give val_dataroot_gt, or write false", "val_enabled")
    if not preset.val_enabled:
        yield inert("val_enabled is false", *own)
        return
    if not preset.metrics_enabled:
        yield inert("metrics_enabled is false", "metrics", "save_best")
    elif preset.save_best and preset.save_best not in dict(preset.metrics):
        yield error(f"{preset.save_best} is not one of the metrics ({', '.join(dict(preset.metrics))})", "save_best")
    if not preset.tile_size:
        yield inert("tile_size is 0", "tile_overlap")


def averages(preset: Preset) -> Iterator[Finding]:
    if not preset.ema_decay and any(loss.type.casefold() == "ldlloss" for loss in preset.active_losses):
        yield error("ldlloss compares with the averaged network; give ema_decay a value such as 0.999", "losses")
    free = preset.optim_g.type.casefold().replace("_", "")
    if preset.ema_decay and (free.endswith("sf") or "schedulefree" in free):
        yield note("a schedule-free optimizer averages by itself; ema_decay 0 takes its own average", "ema_decay")
    if not preset.ema_decay:
        yield inert("ema_decay is 0", "ema_power", "ema_update_after_step", "ema_switch_iter")


def formats(preset: Preset) -> Iterator[Finding]:
    if preset.mixed_precision != "no":
        yield inert("mixed_precision says it", "use_amp", "amp_bf16")
    elif not preset.use_amp:
        yield inert("use_amp is false", "amp_bf16")
    if not preset.use_compile:
        yield inert("use_compile is false", "compile_mode")
    if not preset.grad_clip:
        yield inert("grad_clip is false", "grad_clip_max_norm")
    if not preset.pretrain_network_g:
        yield inert("there is no pretrain_network_g", "param_key_g", "strict_load_g")


SUPER_RESOLUTION_RULES: tuple[Rule, ...] = (
    sizes, weights, adversary, degradations, pictures, measuring, averages, formats,
    trackers,
)  # fmt: skip
