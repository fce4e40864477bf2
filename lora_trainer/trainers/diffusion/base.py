"""A base model made ready for a diffusion training: on its device, in its number formats, its pictures encoded."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.data.latent_cache import LatentCache, LatentSettings, Team
from lora_trainer.data.survey import Sample
from lora_trainer.engine.console import counted
from lora_trainer.engine.processes import Processes
from lora_trainer.models.attention import AttentionChoice, use_attention
from lora_trainer.models.base_model import BaseModel, load_base_model
from lora_trainer.models.checkpoint import Checkpoint
from lora_trainer.models.compiled_blocks import compile_blocks
from lora_trainer.models.kohya_keys import Part
from lora_trainer.models.recomputation import Rung, recompute_feed_forwards
from lora_trainer.models.weights_identity import weights_identity
from lora_trainer.trainers.diffusion.objective import encode

log = logging.getLogger(__name__)

WHAT_IS_MISSING = ", as far as the cache does not have them"
MOST_DECODERS = 16  # threads of a process that decode pictures ahead of the VAE
TEXT_PARTS: tuple[Part, ...] = ("text_encoder", "text_encoder_2")


def load_base(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    attention: AttentionChoice,
    *,
    vae: str = "",
    zero_terminal_snr: bool = False,
    placed: bool = True,
) -> BaseModel:
    """The base model with UNet and text encoders on the device, or `placed` there by whoever calls; its own VAE, or
    that of a path."""
    log.info("loading %s", checkpoint.path)
    base = load_base_model(checkpoint, dtype=dtype, vae=Path(vae) if vae else None)
    if zero_terminal_snr:
        base = replace(base, zero_terminal_snr=True)
    if note := use_attention(base.unet, attention, device):
        log.info("%s", note)
    for model in (base.unet, *base.text_encoders):
        if placed:
            model.to(device)
        model.train()  # for checkpointing and dropout; the models themselves have none
    return base


def parts_of(base: BaseModel) -> dict[Part, nn.Module]:
    """The models that can be trained."""
    return {"unet": base.unet, **dict(zip(TEXT_PARTS, base.text_encoders, strict=False))}


def place_vae(vae: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Onto the device, in this format where that is safe: on a CPU, and where fp16 overflows, it stays fp32."""
    half = dtype if device.type == "cuda" else torch.float32
    if half == torch.float16 and vae.config.get("force_upcast", False):
        log.info("the base model's VAE overflows in fp16, by its own configuration; it runs in fp32")
        half = torch.float32
    vae.to(device)
    if half != torch.float32:
        vae.to(dtype=half)


def forget_activations(base: BaseModel, rung: Rung) -> None:
    """What is forgotten in the forward pass and computed again: on the highest rung in the text encoders too."""
    recompute_feed_forwards(base.unet, rung)
    if rung != "everything":
        return
    base.unet.enable_gradient_checkpointing()
    for encoder in base.text_encoders:
        # the new name since transformers 5.20; the old one will go in 6
        name = "activation_checkpointing_enable"
        getattr(encoder, name if hasattr(encoder, name) else "gradient_checkpointing_enable")({"use_reentrant": False})


def compile_unet(base: BaseModel) -> None:
    """When its blocks are first used."""
    blocks = compile_blocks(base.unet)
    log.info("torch_compile: %d blocks of the UNet are compiled in the first steps, which may take minutes", blocks)


def encode_pictures(
    samples: Sequence[Sample], vae: Any, source: Path, processes: Processes, *, mirrored: bool, batch_size: int = 1,
    folder: Path | None = None,
) -> LatentCache:  # fmt: skip
    """Every picture's latents, in memory or in the folder. `source` is the file that the VAE came from."""
    half = vae.dtype != torch.float32
    settings = LatentSettings(
        identity=f"{weights_identity(source)} {vae.dtype}",
        mirrored=mirrored,
        dtype=torch.float16 if half else torch.float32,
        batch_size=max(1, batch_size),
        folder=folder,
        workers=min(MOST_DECODERS, max(4, (os.cpu_count() or 4) // processes.world)),
    )
    team = Team(processes.rank, processes.world, processes.gather)
    encode_here: Callable[[Tensor], tuple[Tensor, Tensor]] = lambda pixels: encode(vae, pixels)  # noqa: E731
    log.info("encoding %d pictures%s", len(samples), WHAT_IS_MISSING if folder else "")
    with counted("encoding pictures", len(samples)) as advance:
        return LatentCache.build(samples, encode_here, settings, team, advance)
