"""What a restoration preset's keys have to say to each other."""

from __future__ import annotations

from collections.abc import Iterator

from lora_trainer.config.findings import Finding, Rule, error, inert, note
from lora_trainer.config.restoration import MODEL_PATHS, RestorationPreset
from lora_trainer.config.restoration_degradation import (
    Degradation,
    FirstDegradation,
    LastDegradation,
    SecondDegradation,
)  # fmt: skip
from lora_trainer.config.setting import keys_of
from lora_trainer.config.tracker_rules import trackers

Preset = RestorationPreset
Findings = Iterator[Finding]

ADDRESSES = ("http://", "https://", "ftp://")
SOURCES = ("train_dir", "file_list", "dataroot_gt")
LISTS = (".parquet", ".csv")
OF_LISTS = ("lq_key", "gt_key", "prompt_key", "image_path_prefix")
RATES = ("lr", "lr_G", "lr_D")


def sources(preset: Preset) -> Findings:
    degrades = preset.high_order_degradation
    if not (preset.train_dir or preset.file_list or preset.dataroot_gt):
        yield error("no pictures to train on; give train_dir, file_list or dataroot_gt", *SOURCES)
    if preset.dataroot_gt and not degrades:
        yield error(
            "has good pictures alone; write high_order_degradation true, or give pairs in train_dir or file_list",
            "dataroot_gt", "high_order_degradation",
        )  # fmt: skip
    if preset.train_dir and degrades:
        yield error(
            "has bad pictures, which high_order_degradation would make anew; write that false, or give the folders GT "
            "as dataroot_gt",
            "train_dir", "high_order_degradation",
        )  # fmt: skip
    strange = [name for name in preset.file_list if not name.casefold().endswith(LISTS)]
    if strange:
        yield error(f"{strange[0]} is no list that can be read; write a .parquet or .csv file", "file_list")
    if not preset.train_dir:
        yield inert("there is no train_dir", "train_types")
    if not preset.file_list:
        yield inert("there is no file_list", *OF_LISTS)
    elif degrades:
        yield inert("high_order_degradation makes the bad pictures", "lq_key")


def prompts(preset: Preset) -> Findings:
    if preset.p_empty_prompt == 1:
        yield inert("p_empty_prompt is 1, so every prompt is empty", "prompt", "prompt_key", "use_filename_as_prompt")
    elif preset.use_filename_as_prompt:
        yield inert("use_filename_as_prompt is true", "prompt")


def columns(preset: Preset) -> Findings:
    names = [preset.lq_key, preset.gt_key, preset.prompt_key]
    if preset.file_list and len(set(names)) < len(names):
        yield error(f"two columns have the same name: {', '.join(names)}", "gt_key", "lq_key", "prompt_key")


def degradations(preset: Preset) -> Findings:
    if not preset.high_order_degradation:
        groups = (Degradation, FirstDegradation, SecondDegradation, LastDegradation)
        names = [key for group in groups for key in keys_of(group) if key != "high_order_degradation"]
        yield inert("high_order_degradation is false", *names)
    elif not preset.lq_usm:
        yield inert("lq_usm is false", "lq_usm_radius_range")


def weights(preset: Preset) -> Findings:
    for stage in preset.loss_stages:
        lambdas = stage.lambdas
        place = "lambda_schedule" if stage.step else "lambda_l2"
        moment = f"from step {stage.step} on " if stage.step else ""
        if not any(lambdas.of_pixels) and not lambdas.gan:
            yield error(f"{moment}every loss has the weight 0, so nothing would be learnt; give one a weight", place)
        elif not any(lambdas.of_pixels):
            yield note(f"{moment}lambda_gan alone makes pictures that no longer follow the original", place)
    if preset.lambda_gan_warmup_steps and not any(preset.first_lambdas.of_pixels) and preset.lambda_gan:
        text = "lambda_gan begins at 0 and is the only loss, so the first step would have none; write 0"
        yield error(text, "lambda_gan_warmup_steps")
    late = [change["step"] for change in preset.lambda_schedule if change["step"] >= preset.max_train_steps]
    if late and len(late) == len(preset.lambda_schedule):
        yield inert(f"the training ends at step {preset.max_train_steps}", "lambda_schedule")
    elif late:
        text = f"the training ends at step {preset.max_train_steps}, before the change at step {late[0]}"
        yield note(text, "lambda_schedule")


def adversary(preset: Preset) -> Findings:
    if not preset.has_discriminator:
        yield inert(
            "lambda_gan is 0 all the time, so there is no discriminator", "lr_D", "discriminator_backbone", "r1_gamma",
            "r1_interval", "lambda_gan_warmup_steps",
        )  # fmt: skip
        return
    if not preset.r1_gamma:
        yield inert("r1_gamma is 0", "r1_interval")
    elif preset.r1_interval > preset.max_train_steps:
        text = f"the training has {preset.max_train_steps} steps, so R1 would never be computed; write a smaller number"
        yield error(text, "r1_interval")
    if preset.lambda_gan_warmup_steps >= preset.max_train_steps:
        text = f"the training ends at step {preset.max_train_steps}, so lambda_gan never comes to its whole value"
        yield note(text, "lambda_gan_warmup_steps")


def networks(preset: Preset) -> Findings:
    for key in MODEL_PATHS:
        if getattr(preset, key).casefold().startswith(ADDRESSES):
            yield error("an address is not downloaded; save the files and write their path", key)
    for key in (key for key in MODEL_PATHS if key in preset.stand_ins):
        yield note("stand-in is a tiny network that has learnt nothing: for trying out, not for results", key)
    if not preset.needs_lpips:
        yield inert("lambda_lpips is 0 and nothing is measured, so there is no LPIPS", "lpips_weights")


def adapter(preset: Preset) -> Findings:
    if not preset.lora_modules or not all(preset.lora_modules):
        yield error('needs names of layers, such as ["to_q", "to_k", "to_v"]', "lora_modules")
    if not preset.log_grad_steps:
        yield inert("log_grad_steps is 0", "log_grad_modules")
        return
    if not preset.log_grad_modules or not all(preset.log_grad_modules):
        yield error('needs names of layers, such as ["conv_out"], or write log_grad_steps 0', "log_grad_modules")
        return
    strange = [name for name in preset.log_grad_modules if not _has_adapter(name, preset.lora_modules)]
    if strange:
        text = f"{', '.join(strange)} gets no LoRA; write layers that lora_modules names, or log_grad_steps 0"
        yield error(text, "log_grad_modules", "lora_modules")


def _has_adapter(layer: str, modules: tuple[str, ...]) -> bool:
    return any(layer == name or layer.endswith(f".{name}") or name.endswith(f".{layer}") for name in modules)


def optimizer(preset: Preset) -> Findings:
    for name in preset.optimizer_options:
        if name in RATES:
            yield error(f"{name} is no option of it; write lr_G and lr_D as keys of their own", "opt_kwargs")


def measuring(preset: Preset) -> Findings:
    if not preset.val_dir:
        yield inert(
            "there is no val_dir", "validation_steps", "degradation_types", "num_samples_per_type", "val_batch_size",
            "val_prompt", "save_best",
        )  # fmt: skip
        return
    types = preset.degradation_types
    if twice := sorted({name for name in types if types.count(name) > 1}):
        yield error(f"{', '.join(twice)} is named twice", "degradation_types")
    if strange := [name for name in types if not name or "/" in name or "\\" in name]:
        yield error(f'"{strange[0]}" is no name of a folder in val_dir', "degradation_types")


def averages(preset: Preset) -> Findings:
    if not preset.use_ema:
        yield inert("use_ema is false", "ema_decay")
    elif not preset.ema_decay:
        yield inert("ema_decay is 0", "use_ema")
    elif preset.ema_decay == 1:
        yield error("the copy would stay what it is before the first step; write less, such as 0.999", "ema_decay")


def saving(preset: Preset) -> Findings:
    if not preset.checkpointing_steps:
        yield inert("checkpointing_steps is 0", "checkpoints_total_limit")
    if preset.output_name.startswith("checkpoint-"):
        yield error("names that begin with checkpoint- are those of the folders; write another", "output_name")


RESTORATION_RULES: tuple[Rule, ...] = (
    sources, prompts, columns, degradations, weights, adversary, networks, adapter, optimizer, measuring, averages,
    saving, trackers,
)  # fmt: skip
