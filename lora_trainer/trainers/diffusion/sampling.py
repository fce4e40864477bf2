"""Previews: pictures drawn with the models as they are in training.

Letters: b batch (2 with guidance: without and with the prompt), n chunks.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import Tensor, nn

from lora_trainer.draws import torch_generator
from lora_trainer.losses.noise_schedule import BETA_END, BETA_START, TIMESTEPS
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.text_encoding import CHUNK_WORDS, encode_prompts, token_count
from lora_trainer.trainers.diffusion.sample_prompts import SamplePrompt
from lora_trainer.trainers.diffusion.text import CaptionTokens

# sample_sampler -> diffusers' scheduler and its options
SAMPLERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm_2": ("KDPM2DiscreteScheduler", {}),
    "dpm_2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpmsolver": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpmsingle": ("DPMSolverSinglestepScheduler", {"lower_order_final": True}),
}
# the other half of sd-scripts' names: k-diffusion called the same samplers so
K_DIFFUSION_NAMES = {f"k_{name}": name for name in ("lms", "euler", "euler_a", "dpm_2", "dpm_2_a")}
WITH_RESCALED_BETAS = ("ddim", "euler", "euler_a", "dpmsolver", "dpmsolver++")


def canonical(name: str) -> str:
    """The name of the sampler itself, where it has another one from k-diffusion."""
    return K_DIFFUSION_NAMES.get(name, name)


@dataclass(frozen=True)
class Sampler:
    """How previews are drawn: sd-scripts' name of the sampler, and what the model predicts."""

    name: str
    v_prediction: bool
    zero_terminal_snr: bool

    def scheduler(self) -> Any:
        name = canonical(self.name)
        scheduler, options = SAMPLERS[name]
        facts: dict[str, Any] = {
            "beta_start": BETA_START,
            "beta_end": BETA_END,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": TIMESTEPS,
            "prediction_type": "v_prediction" if self.v_prediction else "epsilon",
        }
        if self.zero_terminal_snr and name in WITH_RESCALED_BETAS:
            facts |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        return getattr(diffusers, scheduler)(**facts, **options)


@dataclass(frozen=True)
class Drawing:
    """The live models, and what to do with a prompt."""

    kind: Kind
    unet: Any
    vae: Any
    text_encoders: Sequence[Any]
    tokenizers: Sequence[Any]
    clip_skip: int
    sampler: Sampler
    weighted: bool = False  # whether prompts hold weights, as captions do with weighted_captions
    dtype: torch.dtype | None = None  # of the passes; None: that of the UNet's weights

    @torch.no_grad()
    def draw(self, prompt: SamplePrompt) -> Image.Image:
        """The picture of a prompt; the models and the global random generators are left as they were."""
        cuda = [self.unet.device] if self.unet.device.type == "cuda" else []
        with evaluating(self.unet, self.vae, *self.text_encoders), torch.random.fork_rng(cuda):
            latents = self._denoise(prompt)
            scaled = latents / self.vae.config.scaling_factor
            with torch.autocast(self.vae.device.type, enabled=False):
                pixels = self.vae.decode(scaled.to(self.vae.device, self.vae.dtype), return_dict=False)[0][0]
        values = ((pixels.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)  # (3, height, width)
        return Image.fromarray(values.permute(1, 2, 0).numpy())

    def _denoise(self, prompt: SamplePrompt) -> Tensor:
        """(1, 4, h, w) the latents after all steps. Noise comes from the CPU, so it is the same on every device."""
        device, dtype = self.unet.device, self.dtype or self.unet.dtype
        sampler = replace(self.sampler, name=prompt.sampler) if prompt.sampler else self.sampler
        scheduler = sampler.scheduler()
        scheduler.set_timesteps(prompt.steps)
        generator = torch_generator(prompt.seed, "preview")
        shape = (1, self.unet.config.in_channels, prompt.height_px // 8, prompt.width_px // 8)
        latents: Tensor = torch.randn(shape, generator=generator) * scheduler.init_noise_sigma
        noise = _noise_source(scheduler, generator)
        guided = prompt.guidance > 1
        condition = self._condition([prompt.negative, prompt.text] if guided else [prompt.text])
        extra = None
        if condition.pooled is not None:
            size = (prompt.height_px, prompt.width_px, 0, 0, prompt.height_px, prompt.width_px)
            time_ids = torch.tensor([size] * len(condition.hidden), dtype=dtype, device=device)
            extra = {"text_embeds": condition.pooled.to(dtype), "time_ids": time_ids}
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            inputs = scaled.expand(len(condition.hidden), -1, -1, -1).to(device, dtype)
            moment = timestep.to(device)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                hidden = condition.hidden.to(dtype)
                predicted = self.unet(inputs, moment, hidden, added_cond_kwargs=extra, return_dict=False)[0]
            predicted = predicted.float().cpu()
            if guided:
                without, with_prompt = predicted.chunk(2)
                predicted = without + prompt.guidance * (with_prompt - without)
            latents = scheduler.step(predicted, timestep, latents, **noise).prev_sample
        return latents

    def _condition(self, texts: Sequence[str]) -> Any:
        device = self.text_encoders[0].device
        chunks = max(self._chunks(text) for text in texts)
        batch = CaptionTokens(self.tokenizers, CHUNK_WORDS * chunks, self.weighted).batch(texts)
        ids, weights = ([each.to(device) for each in batch.get(key, ())] for key in ("token_ids", "token_weights"))
        dtype = self.dtype or self.unet.dtype
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            condition = encode_prompts(self.kind, list(self.text_encoders), ids, self.clip_skip, weights or None)
        pooled = condition.pooled
        unet_device = self.unet.device
        return type(condition)(condition.hidden.to(unet_device), None if pooled is None else pooled.to(unet_device))

    def _chunks(self, text: str) -> int:
        """As many chunks of 75 as the longest tokenizer's count of it asks for, three at most."""
        words = max(token_count(tokenizer, text, self.weighted) for tokenizer in self.tokenizers)
        return min(3, max(1, -(-words // CHUNK_WORDS)))


def _noise_source(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """The samplers that add noise take a generator; the others refuse the argument."""
    return {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}


@contextlib.contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """In evaluation mode, and afterwards each part of them as it was."""
    before = [(part, part.training) for model in models for part in model.modules()]
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, training in zip(models, modes, strict=True):
            model.train(training)
        for part, training in before:
            part.training = training
