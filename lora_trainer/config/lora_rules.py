"""What the keys of a LoRA preset mean together: contradictions, and keys that another key makes idle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lora_trainer.config.findings import Finding, Rule, error, inert, note
from lora_trainer.config.lora_network_rules import KOHYA, network
from lora_trainer.config.lora_saving_rules import saving
from lora_trainer.config.tracker_rules import trackers

if TYPE_CHECKING:
    from lora_trainer.config.lora import LoraPreset

Findings = Iterator[Finding]

# a key, the schedules that read it, and what asks for nothing
READ_BY_SCHEDULES: dict[str, tuple[tuple[str, ...], float]] = {
    "lr_scheduler_num_cycles": (("cosine_with_restarts", "cosine_with_min_lr", "warmup_stable_decay"), 1),
    "lr_scheduler_power": (("polynomial",), 1),
    "lr_scheduler_min_lr_ratio": (("cosine_with_min_lr", "warmup_stable_decay"), 0),
    "lr_decay_steps": (("warmup_stable_decay",), 0),
    "lr_scheduler_timescale": (("inverse_sqrt",), 0),
}
MOVE_TAGS = ("shuffle_caption", "caption_tag_dropout_rate", "token_warmup_step")
CHANGE_CAPTIONS = (*MOVE_TAGS, "enable_wildcard")


def batches(preset: LoraPreset) -> Findings:
    if preset.train_batch_size == "auto" and preset.dataset_config:
        yield error(
            "a dataset_config may have batch sizes of its own, which auto would not be found for; write a number",
            "train_batch_size",
            "dataset_config",
        )


def caches(preset: LoraPreset) -> Findings:
    """A cache stands for something that stays the same."""
    changing_images = [key for key in ("color_aug", "random_crop") if getattr(preset, key)]
    if preset.caches_latents and changing_images:
        cache = "cache_latents" if preset.cache_latents else "cache_latents_to_disk"
        for key in changing_images:
            text = f"changes the image at every step, but {cache} encodes it once; turn one of them off"
            yield error(text, key, cache)
    if not preset.sdxl_cache_text_encoder_outputs:
        text = "read beside sdxl_cache_text_encoder_outputs only, which is off"
        yield from _idle(preset, text, "cache_text_encoder_outputs_to_disk")
        return
    if not preset.sdxl:
        caching = ("sdxl_cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk")
        yield from _idle(preset, "read for SDXL only", *caching)
        return
    for key in CHANGE_CAPTIONS:
        if getattr(preset, key):
            text = "changes the caption at every step, but sdxl_cache_text_encoder_outputs encodes it once"
            yield error(f"{text}; turn one of them off", key, "sdxl_cache_text_encoder_outputs")
    if preset.text_encoder_rate is not None:
        text = "captions are encoded once, but the text encoders are trained; set text_encoder_lr to 0 or turn this off"
        yield error(text, "sdxl_cache_text_encoder_outputs", "text_encoder_lr")


def model(preset: LoraPreset) -> Findings:
    if preset.v2 and preset.sdxl:
        yield error("a model is either SD 2.x or SDXL; turn v2 or sdxl off", "v2", "sdxl")
    if preset.sdxl:
        yield from _idle(preset, "SDXL always takes the layer before the last", "clip_skip", calm=1)
    else:
        yield from _idle(preset, "read for SDXL only", "sdxl_no_half_vae")
    if preset.mem_eff_attn and preset.xformers != "none":
        yield inert(f"xformers is {preset.xformers}, which comes first", "mem_eff_attn")
    if preset.fp8_base and preset.fp8_base_unet:
        yield inert("fp8_base includes the UNet", "fp8_base_unet")
    if preset.int8_base:
        yield from _idle(preset, "int8_base comes first", "fp8_base", "fp8_base_unet")
        if preset.LoRA_type not in KOHYA:
            text = f"goes with LoRA_type {', '.join(KOHYA)}, which is {preset.LoRA_type}; fp8_base goes with all"
            yield error(text, "int8_base", "LoRA_type")
    elif (preset.fp8_base or preset.fp8_base_unet) and preset.mixed_precision == "no":
        key = "fp8_base" if preset.fp8_base else "fp8_base_unet"
        yield error("needs mixed_precision bf16 or fp16 to compute in, which is no", key, "mixed_precision")
    if not preset.int8_base:
        yield from _idle(preset, "int8_base is false", "int8_matmul")
    for key, wanted in (("full_fp16", "fp16"), ("full_bf16", "bf16")):
        if getattr(preset, key) and preset.mixed_precision != wanted:
            yield error(f"needs mixed_precision {wanted}, which is {preset.mixed_precision}", key, "mixed_precision")


def buckets(preset: LoraPreset) -> Findings:
    if not preset.enable_bucket:
        idle = ("bucket_no_upscale", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps")
        yield inert("enable_bucket is off", *idle)
        return
    if preset.bucket_no_upscale:
        yield inert("bucket_no_upscale takes the size from each image", "min_bucket_reso", "max_bucket_reso")
        return
    shorter_px, longer_px = sorted(preset.max_resolution)
    if preset.min_bucket_reso > shorter_px:
        text = f"{preset.min_bucket_reso} is more than the shorter side of max_resolution, {shorter_px}"
        yield error(text, "min_bucket_reso", "max_resolution")
    if preset.max_bucket_reso < longer_px:
        text = f"{preset.max_bucket_reso} is less than the longer side of max_resolution, {longer_px}"
        yield error(text, "max_bucket_reso", "max_resolution")


def captions(preset: LoraPreset) -> Findings:
    if not (preset.dataset_config or any(getattr(preset, key) for key in MOVE_TAGS)):
        still = f"{', '.join(MOVE_TAGS[:-1])} and {MOVE_TAGS[-1]} are off, so that all tags stay where they are"
        yield from _idle(preset, still, "keep_tokens")
        if preset.keep_tokens_separator:
            yield note(f"only becomes a caption_separator: {still}", "keep_tokens_separator")
    if not (preset.dataset_config or preset.token_warmup_step):
        yield from _idle(preset, "read beside token_warmup_step only, which is 0", "token_warmup_min", calm=1)
    marks = ("caption_separator", "keep_tokens_separator", "secondary_separator")
    for number, key in enumerate(marks):
        for other in marks[:number]:
            if getattr(preset, key) and getattr(preset, key) == getattr(preset, other):
                yield error(f"the same as {other}; write another sign for one of them", key, other)


def noise(preset: LoraPreset) -> Findings:
    if preset.min_timestep > preset.max_timestep:
        text = f"{preset.min_timestep} must not be more than max_timestep, {preset.max_timestep}"
        yield error(text, "min_timestep", "max_timestep")
    elif preset.min_timestep == preset.max_timestep:
        yield note("equal to max_timestep: all is trained at that one timestep", "min_timestep")
    if preset.noise_offset_type == "Multires":
        original = ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale")
        yield from _idle(preset, "noise_offset_type is Multires", *original)
        if preset.multires_noise_discount == 0 and preset.multires_noise_iterations:
            yield note("0 is taken as it stands; kohya_ss would have made it 0.3", "multires_noise_discount")
        return
    if preset.multires_noise_iterations:
        multires = ("multires_noise_iterations", "multires_noise_discount")
        yield from _idle(preset, "noise_offset_type is Original", *multires)
    if not preset.noise_offset:
        yield from _idle(preset, "noise_offset is 0", "noise_offset_random_strength")
    if preset.adaptive_noise_scale and not preset.noise_offset:
        yield error("needs a noise_offset to add to; set noise_offset, or this to 0", "adaptive_noise_scale")


def loss(preset: LoraPreset) -> Findings:
    if preset.loss_type not in ("huber", "smooth_l1"):
        text = f"read by the Huber losses only; loss_type is {preset.loss_type}"
        for key, usual in (("huber_schedule", "snr"), ("huber_c", 0.1), ("huber_scale", 1.0)):
            yield from _idle(preset, text, key, calm=usual)
    if preset.zero_terminal_snr and not preset.v_parameterization:
        text = "at the last timestep there is nothing but noise to see, so that a noise prediction learns nothing there"
        yield note(text, "zero_terminal_snr", "v_parameterization")
    if not preset.ip_noise_gamma:
        yield from _idle(preset, "ip_noise_gamma is 0", "ip_noise_gamma_random_strength")
    if preset.v_pred_like_loss and preset.v_parameterization:
        text = "makes a noise loss like a v-prediction loss, which v_parameterization already is; set it to 0"
        yield error(text, "v_pred_like_loss", "v_parameterization")
    if preset.scale_v_pred_loss_like_noise_pred and not preset.v_parameterization:
        text = "scales a v-prediction loss, but v_parameterization is off; turn this off"
        yield error(text, "scale_v_pred_loss_like_noise_pred", "v_parameterization")


def rates(preset: LoraPreset) -> Findings:
    if not (preset.unet_lr or preset.text_encoder_lr or preset.learning_rate):
        text = "0, as are unet_lr and text_encoder_lr, so nothing would be trained; set one of them, such as 1e-4"
        yield error(text, "learning_rate", "unet_lr", "text_encoder_lr")
        return
    own = [key for key in ("unet_lr", "text_encoder_lr") if getattr(preset, key)]
    if own:
        verb = "are" if len(own) == 2 else "is"
        yield inert(f"{' and '.join(own)} {verb} set, so that nothing takes this rate", "learning_rate")
    if preset.unet_rate is None:
        yield note("0 leaves the UNet untrained; the text encoder is trained", "unet_lr")
    if preset.stop_text_encoder_training_pct < 0:
        yield note("the text encoder is not trained", "stop_text_encoder_training_pct")
        if not preset.unet_rate:
            text = "leaves nothing to train, since unet_lr is 0; set one of them"
            yield error(text, "stop_text_encoder_training_pct", "unet_lr")
    elif preset.text_encoder_rate is None:
        yield note("0 leaves the text encoder untrained; the UNet is trained", "text_encoder_lr")
        yield from _idle(preset, "the text encoder is not trained", "stop_text_encoder_training_pct")
    loraplus = [key for key in ("loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio") if getattr(preset, key)]
    if len(loraplus) == 2:
        yield from _idle(preset, f"{' and '.join(loraplus)} are set", "loraplus_lr_ratio")


def adaptive_optimizer(preset: LoraPreset) -> Findings:
    if not preset.finds_its_own_rate:
        return
    trained = {"unet_lr": preset.unet_lr, "text_encoder_lr": preset.text_encoder_lr}
    used = {key: rate for key, rate in trained.items() if rate} or {"learning_rate": preset.learning_rate}
    for key, rate in used.items():
        if rate != 1:
            yield note(f"{rate:g} is read as 1.0: {preset.optimizer} finds the rate itself", key, "optimizer")


def schedule(preset: LoraPreset) -> Findings:
    if preset.lr_warmup_steps:
        yield from _idle(preset, f"lr_warmup_steps is {preset.lr_warmup_steps:g}", "lr_warmup")
    if preset.lr_scheduler_type:
        by_name = ("lr_scheduler_num_cycles", "lr_scheduler_power", "lr_scheduler_min_lr_ratio", "lr_decay_steps")
        yield inert(f"lr_scheduler_type is {preset.lr_scheduler_type}", "lr_scheduler")
        yield from _idle(preset, "lr_scheduler_type has options of its own", *by_name[:2], calm=1)
        yield from _idle(preset, "lr_scheduler_type has options of its own", *by_name[2:], "lr_scheduler_timescale")
        return
    warmup = "lr_warmup_steps" if preset.lr_warmup_steps else "lr_warmup"
    if preset.lr_scheduler == "constant" and getattr(preset, warmup):
        share = preset.lr_warmup if warmup == "lr_warmup" else preset.lr_warmup_steps * 100
        steps = f"{share:g} % of the" if preset.lr_warmup_steps < 1 else f"the first {int(preset.lr_warmup_steps)}"
        text = f"{steps} steps rise from 0 and the rest are constant, as with constant_with_warmup"
        yield note(text, warmup, "lr_scheduler")
    for key, (names, calm) in READ_BY_SCHEDULES.items():
        if preset.lr_scheduler not in names:
            yield from _idle(preset, f"read by {', '.join(names)} only", key, calm=calm)
    if preset.lr_scheduler == "polynomial" and preset.lr_scheduler_power == 0:
        text = "0 is taken as it stands, so that the rate stays; kohya_ss would have made it 1"
        yield note(text, "lr_scheduler_power")
    given = preset.lr_scheduler_options
    if preset.lr_scheduler == "piecewise_constant" and "step_rules" not in given:
        text = "piecewise_constant needs its steps; write step_rules='1:1000,0.1:2000,0.01'"
        yield error(text, "lr_scheduler_args", "lr_scheduler")
    if preset.lr_scheduler == "warmup_stable_decay" and not (preset.lr_decay_steps or "num_decay_steps" in given):
        text = "warmup_stable_decay needs the steps over which it falls, such as 0.1 for a tenth of all"
        yield error(text, "lr_decay_steps", "lr_scheduler")
    if preset.lr_scheduler == "adafactor" and preset.optimizer.rpartition(".")[2] != "Adafactor":
        text = f"is constant here: the optimizer is {preset.optimizer}, and only Adafactor finds its rate by itself"
        yield note(text, "lr_scheduler")


def length(preset: LoraPreset) -> Findings:
    if preset.max_train_epochs:
        yield from _idle(preset, f"max_train_epochs is {preset.max_train_epochs}", "max_train_steps")
        yield from _idle(
            preset, f"max_train_epochs is {preset.max_train_epochs}", "epoch", calm=preset.max_train_epochs
        )
    elif preset.max_train_steps:
        yield from _idle(preset, f"max_train_steps is {preset.max_train_steps}", "epoch", calm=1)


def zeros(preset: LoraPreset) -> Findings:
    """A 0 that kohya_ss drops on the way, so that its default came back."""
    if preset.max_grad_norm == 0:
        yield note("0 turns clipping off; kohya_ss would have made it 1", "max_grad_norm")
    if preset.network_alpha == 0:
        yield note(f"0 stands for network_dim, {preset.network_dim}; kohya_ss would have made it 1", "network_alpha")
    if preset.prior_loss_weight == 0 and preset.reg_data_dir:
        text = "0 leaves the regularisation images without effect; kohya_ss would have made it 1"
        yield note(text, "prior_loss_weight")
    if preset.seed == 0:
        yield note("0 draws a new seed for each run", "seed")


def samples(preset: LoraPreset) -> Findings:
    due = preset.sample_every_n_epochs or preset.sample_every_n_steps
    if preset.sample_prompts and not due:
        text = "drawn when you ask for it alone (p, or a file sample.now): sample_every_n_epochs and _steps are 0"
        yield note(text, "sample_prompts")
    if due and not preset.sample_prompts:
        yield inert(
            "sample_prompts is empty, so there is nothing to draw", "sample_every_n_epochs", "sample_every_n_steps"
        )
    elif preset.sample_every_n_epochs and preset.sample_every_n_steps:
        yield inert("sample_every_n_epochs comes first", "sample_every_n_steps")
    if not (due and preset.sample_prompts):
        yield from _idle(preset, "no previews are due", "sample_at_first")
    if not preset.sample_prompts:
        yield from _idle(preset, "no previews are drawn", "sample_sampler", calm="euler_a")


def validation(preset: LoraPreset) -> Findings:
    if not (preset.validates or preset.dataset_config):
        text = "no images are held out; set validation_split or validation_data_dir"
        yield from _idle(preset, text, "validate_every_n_epochs", calm=1)
        idle = ("validate_every_n_steps", "max_validation_steps", "save_best", "early_stopping_patience")
        yield from _idle(preset, text, "validation_seed", *idle)
        return
    if preset.validation_data_dir:
        yield from _idle(preset, "validation_data_dir is set", "validation_split")
    if preset.validate_every_n_steps:
        yield from _idle(preset, "validate_every_n_steps comes first", "validate_every_n_epochs", calm=1)
    if preset.early_stopping_patience and not (preset.validate_every_n_steps or preset.validate_every_n_epochs):
        text = "needs measurements on the way, and validate_every_n_epochs and validate_every_n_steps are 0"
        yield error(text, "early_stopping_patience", "validate_every_n_epochs")


def data(preset: LoraPreset) -> Findings:
    if not (preset.train_data_dir or preset.dataset_config):
        text = "missing; write the folder that holds folders named like 10_my character, or name a dataset_config"
        yield error(text, "train_data_dir", "dataset_config")
    if preset.dataset_config:
        text = "dataset_config describes the data set"
        yield from _idle(preset, text, "train_data_dir", "reg_data_dir", "conditioning_data_dir", calm="")
    elif not preset.reg_data_dir:
        yield from _idle(preset, "there are no regularisation images", "prior_loss_weight", calm=1)
    if preset.conditioning_data_dir and not preset.masked_loss:
        yield inert("read by masked_loss only, which is off", "conditioning_data_dir")
    if preset.masked_loss and preset.alpha_mask:
        yield inert("masked_loss asks for it", "alpha_mask")


def _idle(preset: LoraPreset, why: str, *keys: str, calm: object = 0) -> Findings:
    """Those of the keys whose value asks for something."""
    for key in keys:
        if getattr(preset, key) != calm:
            yield inert(why, key)


LORA_RULES: tuple[Rule, ...] = (
    model, network, data, batches, buckets, caches, captions, noise, loss,
    rates, adaptive_optimizer, schedule, length, zeros, samples, trackers, saving, validation,
)  # fmt: skip
