"""What the keys of a VAE's training mean together, and which keys have nothing to say then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from lora_trainer.config.findings import Finding, error, inert, note
from lora_trainer.config.finetune_data import Captions
from lora_trainer.config.finetune_loss import NoiseAndLoss
from lora_trainer.config.finetune_optimization import TextEncoderTraining
from lora_trainer.config.finetune_vae import VaeTraining

if TYPE_CHECKING:
    from lora_trainer.config.finetune import FinetunePreset

OF_UNET_AND_TEXTS = (
    *(each.name for each in (*fields(Captions), *fields(TextEncoderTraining), *fields(NoiseAndLoss))),
    "clip_skip", "disable_unet_training", "disable_textenc_training", "unfreeze_last_n_layers",
    "freeze_embeddings", "freeze_final_layer_norm", "attn_type", "torch_compile", "cache_latents",
    "cache_latents_to_disk", "sample_prompts", "ema_sample_nonema_model", "ema_sample_ema_model",
)  # fmt: skip
LOSSES = ("vae_l1_weight", "vae_mse_weight", "vae_gradient_weight", "vae_pooled_weight", "vae_chroma_weight")
OF_LATENTS = ("vae_kl_weight", "vae_kl_warmup_steps", "vae_unit_latents")


def unread_keys(preset: FinetunePreset) -> tuple[str, ...]:
    """Those that have nothing to say of what is trained."""
    if preset.train_vae:
        return OF_UNET_AND_TEXTS
    return tuple(each.name for each in fields(VaeTraining) if each.name != "train_vae")


def vae(preset: FinetunePreset) -> Iterator[Finding]:
    why = "the VAE alone is trained" if preset.train_vae else "train_vae is off"
    yield from _idle(preset, why, unread_keys(preset))
    if not preset.train_vae:
        return
    if not any(getattr(preset, key) for key in LOSSES):
        yield error(f"0 leaves nothing to learn, as do {', '.join(LOSSES[1:])}; give one of them a weight", *LOSSES)
    if preset.mixed_precision == "fp16" and not preset.disable_amp:
        yield note("a VAE's numbers become too large for fp16, so that it is trained in bf16", "mixed_precision")
    if preset.vae_decoder_only:
        yield from _idle(preset, "vae_decoder_only leaves the latents as they are", OF_LATENTS)
    elif not preset.vae_kl_weight:
        yield from _idle(preset, "vae_kl_weight is 0", ("vae_kl_warmup_steps",))


def _idle(preset: FinetunePreset, why: str, keys: tuple[str, ...]) -> Iterator[Finding]:
    """Those of the keys that are given another value than their default."""
    defaults = {each.name: each.default for each in fields(preset)}
    for key in keys:
        if getattr(preset, key) != defaults[key]:
            yield inert(why, key)
