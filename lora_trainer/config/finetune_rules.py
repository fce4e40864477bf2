"""What the keys of a finetune preset mean together: contradictions, and keys that another key makes idle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lora_trainer.config.findings import Finding, Rule, error, inert, note
from lora_trainer.config.finetune import FIND_LAST, SAME, estimates_one_rate, finds_its_own_rate
from lora_trainer.config.finetune_saving import OF_ALL_PICTURES, STABILIZED, VALIDATION
from lora_trainer.config.finetune_vae_rules import vae
from lora_trainer.config.tracker_rules import trackers

if TYPE_CHECKING:
    from lora_trainer.config.finetune import FinetunePreset

Findings = Iterator[Finding]

HIGH_DROPOUT = 0.26
SPOKEN = {"no": "32 bits", "fp16": "fp16"}
OF_THE_TEXT_ENCODER = (
    ("text_encoder_lr", 0), ("text_encoder_lr_scale", 1), ("text_encoder_lr_scheduler", "same"),
    ("text_encoder_lr_warmup_steps", -1),
    ("text_encoder_lr_decay_steps", 0), ("text_encoder_optimizer", "same"), ("text_encoder_optimizer_args", ()),
    ("unfreeze_last_n_layers", 0), ("freeze_embeddings", False), ("freeze_final_layer_norm", False),
)  # fmt: skip


def trained(preset: FinetunePreset) -> Findings:
    if preset.train_vae:
        return
    if preset.disable_unet_training and preset.disable_textenc_training:
        text = "leaves nothing to train, as disable_textenc_training is on too; turn one of them off"
        yield error(text, "disable_unet_training", "disable_textenc_training")
    if preset.disable_textenc_training:
        for key, calm in OF_THE_TEXT_ENCODER:
            yield from _idle(preset, "the text encoder is not trained", key, calm=calm)
    elif preset.unfreeze_last_n_layers:
        yield from _idle(preset, "unfreeze_last_n_layers trains no embeddings", "freeze_embeddings")


def text_encoder_alone(preset: FinetunePreset) -> Findings:
    """What is said of the UNet counts for the text encoder as long as nothing else does."""
    if not preset.disable_unet_training or preset.train_vae or preset.disable_textenc_training:
        return
    text = "{} is set, and the UNet is not trained"
    for name, calm in (("lr", 0), ("optimizer", "AdamW8bit"), ("lr_scheduler", "constant")):
        own = getattr(preset, f"text_encoder_{name}")
        if own and own != SAME:
            yield from _idle(preset, text.format(f"text_encoder_{name}"), name, calm=calm)
    if preset.text_encoder_optimizer_name != preset.optimizer:
        yield from _idle(preset, text.format("text_encoder_optimizer"), "optimizer_args", calm=())
    if preset.text_encoder_lr_warmup_steps >= 0:
        yield from _idle(preset, text.format("text_encoder_lr_warmup_steps"), "lr_warmup_steps", calm=-1)
    if preset.text_encoder_lr_decay_steps:
        yield from _idle(preset, text.format("text_encoder_lr_decay_steps"), "lr_decay_steps")


def run_folder(preset: FinetunePreset) -> Findings:
    if preset.output_dir != f"{preset.logdir.rstrip('/')}/{preset.project_name}":
        if FIND_LAST not in (preset.resume_ckpt.casefold(), preset.ema_resume_model.casefold()):
            yield from _idle(preset, "output_dir is given", "logdir", calm="logs")
        if preset.output_name != preset.project_name:
            yield from _idle(preset, "output_dir and output_name are given", "project_name", calm="myproj")


def precision(preset: FinetunePreset) -> Findings:
    if preset.disable_amp:
        yield inert("disable_amp is on, so that the passes run in 32 bits", "mixed_precision")
    if preset.attn_type == "slice":
        yield note("PyTorch's sdp is used; it saves the same memory", "attn_type")


def own_steps(preset: FinetunePreset) -> Findings:
    """What takes the step of each weight by itself, within the backward pass or in 32 bits."""
    form, key_of_form = preset.number_format, "disable_amp" if preset.disable_amp else "mixed_precision"
    if preset.fused_backward_pass:
        yield from _fused(preset)
        if form == "fp16":
            text = "fp16 decides about a step when all gradients are known; set mixed_precision to bf16 or no"
            yield error(text, "fused_backward_pass", "mixed_precision")
    if preset.full_bf16 and form != "bf16":
        yield error(f"needs mixed_precision bf16; the passes would be in {SPOKEN[form]}", "full_bf16", key_of_form)
    if preset.full_bf16 and preset.save_full_precision and not preset.averages:
        text = "the trained weights are bf16: the files are twice as large and hold nothing more"
        yield note(text, "save_full_precision", "full_bf16")
    for key in ("fused_backward_pass", "full_bf16"):
        if getattr(preset, key):
            yield from _optimizers_with(preset, key)


def _fused(preset: FinetunePreset) -> Findings:
    if preset.grad_accum > 1:
        text = f"gradients of {preset.grad_accum} passes cannot be added up when each is used at once; set grad_accum"
        yield error(f"{text} to 1", "fused_backward_pass", "grad_accum")
    if preset.clip_grad_norm:
        text = "clipping needs the length of all gradients, which are never there together; set clip_grad_norm to 0"
        yield error(text, "fused_backward_pass", "clip_grad_norm")


def _optimizers_with(preset: FinetunePreset, switch: str) -> Findings:
    """Which optimizers cannot step one weight after the other, or not in bf16."""
    for key, name in preset.optimizers.items():
        if estimates_one_rate(name):
            yield error(f"{name} estimates one rate from all weights together; turn {switch} off", key, switch)
        elif switch == "full_bf16" and name.endswith("ScheduleFree"):
            text = f"{name} moves its weights between steps too, where bf16 loses it; turn {switch} off"
            yield error(text, key, switch)


def rates(preset: FinetunePreset) -> Findings:
    found = (preset.vae_rate,) if preset.train_vae else (preset.unet_rate, preset.text_encoder_rate)
    if all(rate(1) == rate(2) for rate in found):
        yield from _idle(preset, "the optimizer finds the rate itself", "scale_lr")
    if preset.text_encoder_lr:
        yield from _idle(preset, "text_encoder_lr is set", "text_encoder_lr_scale", calm=1)
    elif preset.text_encoder_lr_scale == 0:
        yield error("0 would train nothing; set disable_textenc_training instead", "text_encoder_lr_scale")
    elif finds_its_own_rate(preset.text_encoder_optimizer_name, preset.text_encoder_optimizer_options):
        yield from _idle(preset, "the optimizer finds the rate itself", "text_encoder_lr_scale", calm=1)
    main = preset.vae_rate(1) if preset.train_vae else preset.unet_rate(1)
    given = (("lr", main), (
        "text_encoder_lr", preset.trains_text_encoder and preset.text_encoder_rate(1)))  # fmt: skip
    for key, rate in given:
        written = getattr(preset, key)
        if written and rate == 1.0 and written != 1.0:
            yield note(f"{written:g} is read as 1.0: the optimizer finds the rate itself", key, "optimizer")


def schedule(preset: FinetunePreset) -> Findings:
    constant = preset.lr_scheduler == "constant"
    if constant and (preset.disable_textenc_training or preset.text_encoder_scheduler == "constant"):
        yield from _idle(preset, "the rate is constant", "lr_decay_steps")
        yield from _idle(preset, "the rate is constant", "lr_warmup_steps", calm=-1)
    if preset.text_encoder_scheduler == "constant":
        yield from _idle(preset, "the rate of the text encoder is constant", "text_encoder_lr_decay_steps")
        yield from _idle(preset, "the rate of the text encoder is constant", "text_encoder_lr_warmup_steps", calm=-1)
    for prefix in ("", "text_encoder_"):
        warmup, decay = (getattr(preset, f"{prefix}lr_{name}_steps") for name in ("warmup", "decay"))
        if decay and warmup >= decay:
            text = f"{warmup} leaves nothing of the {decay} steps of {prefix}lr_decay_steps; make it smaller"
            yield error(text, f"{prefix}lr_warmup_steps", f"{prefix}lr_decay_steps")


def pictures(preset: FinetunePreset) -> Findings:
    if not preset.rated_dataset:
        yield from _idle(preset, "rated_dataset is off", "rated_dataset_target_dropout_percent", calm=50)
    elif preset.rated_dataset_target_dropout_percent == 0:
        yield error("0 would leave no pictures in the end; 100 keeps all", "rated_dataset_target_dropout_percent")
    if preset.caches_latents:
        text = "latents are cached, so that every picture is cut around its middle"
        yield from _idle(preset, text, "crop_jitter")
    if preset.cond_dropout > HIGH_DROPOUT:
        yield note(f"{preset.cond_dropout:g} is much: the model may learn the pictures without words", "cond_dropout")
    if preset.keep_tags and not preset.shuffle_tags:
        yield note("read only for pictures and folders that turn shuffle_tags on by themselves", "keep_tags")


def noise(preset: FinetunePreset) -> Findings:
    if preset.timestep_start >= preset.timestep_end:
        text = f"{preset.timestep_start} must be less than timestep_end, {preset.timestep_end}"
        yield error(text, "timestep_start", "timestep_end")


def moving_average(preset: FinetunePreset) -> Findings:
    if not preset.averages:
        text = "neither ema_decay_rate nor ema_strength_target is set, so there is no average"
        yield from _idle(preset, text, "ema_update_interval", calm=500)
        yield from _idle(preset, text, "ema_device", calm="cpu")
        yield from _idle(preset, text, "ema_sample_nonema_model", "ema_sample_ema_model")
        yield from _idle(preset, text, "ema_resume_model", calm="")
        return
    if preset.ema_strength_target:
        yield from _idle(preset, "ema_strength_target is set", "ema_decay_rate")
    for key in ("ema_decay_rate", "ema_strength_target"):
        if getattr(preset, key) == 1:
            yield error("1 would leave the average as it begins; 0.9999 is usual", key)


def saving(preset: FinetunePreset) -> Findings:
    if preset.no_save_ckpt:
        yield from _idle(preset, "no_save_ckpt is on", "save_ckpt_dir", calm="")
        yield from _idle(preset, "no_save_ckpt is on", "save_model_as", calm="safetensors")
    if not preset.save_every_n_epochs:
        yield from _idle(preset, "save_every_n_epochs is 0", "save_ckpts_from_n_epochs")


def samples(preset: FinetunePreset) -> Findings:
    if not preset.sample_prompts and not preset.train_vae:
        yield from _idle(preset, "sample_prompts is empty, so there is nothing to draw", "sample_steps", calm=250)
        yield from _idle(preset, "no previews are drawn", "ema_sample_nonema_model", "ema_sample_ema_model")


def validation(preset: FinetunePreset) -> Findings:
    mode = preset.val_split_mode
    if mode == "manual" and not preset.manual_data_root:
        yield error("manual needs the folder of the pictures; set manual_data_root", "val_split_mode")
    yield from _names_of_losses(preset)
    of_measuring = (("val_every_n_epochs", 1), ("val_seed", 555), ("val_batch_size", 0))
    if not preset.validate_training:
        yield from _idle(preset, "validate_training is off", "val_split_mode", calm="none")
        yield from _idle(preset, "validate_training is off", "extra_manual_datasets", calm=())
        yield from _idle(preset, "validate_training is off", "stabilize_training_loss")
    if not preset.validates:
        for key, calm in of_measuring:
            yield from _idle(preset, "no pictures are measured", key, calm=calm)
    if mode != "automatic" or not preset.validates:
        yield from _idle(preset, "val_split_mode is not automatic", "auto_split_proportion", calm=0.15)
    if mode != "manual" or not preset.validates:
        yield from _idle(preset, "val_split_mode is not manual", "manual_data_root", calm="")
    if not (preset.stabilize_training_loss and preset.validates):
        yield from _idle(preset, "stabilize_training_loss is off", "stabilize_split_proportion", calm=0.15)


def _names_of_losses(preset: FinetunePreset) -> Findings:
    taken = {"": True, VALIDATION: preset.val_split_mode != "none", STABILIZED: preset.stabilize_training_loss}
    for name, _ in preset.extra_manual_datasets:
        if taken.get(name, name == OF_ALL_PICTURES):
            text = f"{name} is the name of another loss" if name else "a folder has no name"
            yield error(f"{text}; give it a name of its own", "extra_manual_datasets")


def zeros(preset: FinetunePreset) -> Findings:
    if preset.seed == 0:
        yield note("0 draws a new seed for each run", "seed")


def _idle(preset: FinetunePreset, why: str, *keys: str, calm: object = 0) -> Findings:
    """Those of the keys whose value asks for something."""
    for key in keys:
        if getattr(preset, key) != calm:
            yield inert(why, key)


FINETUNE_RULES: tuple[Rule, ...] = (
    trained, text_encoder_alone, run_folder, precision, own_steps, rates, schedule, pictures, noise, moving_average,
    saving, samples, validation, zeros, vae, trackers,
)  # fmt: skip
