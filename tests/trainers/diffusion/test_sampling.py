"""Previews are what diffusers' own pipelines draw."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch

from lora_trainer.draws import torch_generator
from lora_trainer.models.tiny_models import tiny_base
from lora_trainer.trainers.diffusion.sample_prompts import SAMPLERS as NAMES
from lora_trainer.trainers.diffusion.sample_prompts import SamplePrompt
from lora_trainer.trainers.diffusion.sampling import K_DIFFUSION_NAMES, SAMPLERS, Drawing, Sampler

PROMPT = SamplePrompt("photo of a cat", "blurry", width_px=64, height_px=96, seed=3, steps=4, guidance=3.0)


def drawing(kind: str, sampler: str) -> Drawing:
    base = tiny_base(kind)
    models = [model.float() for model in (base.unet, base.vae, *base.text_encoders)]
    chosen = Sampler(sampler, base.prediction == "v_prediction", base.zero_terminal_snr)
    return Drawing(base.kind, models[0], models[1], models[2:], base.tokenizers, 1, chosen)


def by_diffusers(found: Drawing) -> np.ndarray:
    """The same picture from the pipeline, given the same first noise."""
    parts = {"unet": found.unet, "vae": found.vae, "scheduler": found.sampler.scheduler()}
    parts |= {"text_encoder": found.text_encoders[0], "tokenizer": found.tokenizers[0]}
    if found.kind == "sdxl":
        parts |= {"text_encoder_2": found.text_encoders[1], "tokenizer_2": found.tokenizers[1]}
        pipeline = diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        off = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = diffusers.StableDiffusionPipeline(**parts, **off)
    pipeline.set_progress_bar_config(disable=True)
    shape = (1, 4, PROMPT.height_px // 8, PROMPT.width_px // 8)
    image = pipeline(
        PROMPT.text,
        negative_prompt=PROMPT.negative,
        height=PROMPT.height_px,
        width=PROMPT.width_px,
        num_inference_steps=PROMPT.steps,
        guidance_scale=PROMPT.guidance,
        latents=torch.randn(shape, generator=torch_generator(PROMPT.seed, "preview")),
    ).images[0]
    return np.asarray(image, dtype=np.int16)


@pytest.mark.parametrize("kind", ["sd15", "sd21-v", "sdxl", "sdxl-v"])
def test_a_preview_is_the_pipelines_picture(kind: str) -> None:
    found = drawing(kind, "euler")
    ours = np.asarray(found.draw(PROMPT), dtype=np.int16)
    assert ours.shape == (96, 64, 3)
    assert np.abs(ours - by_diffusers(found)).max() <= 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_and_repeats_itself(sampler: str) -> None:
    found = drawing("sd15", sampler)
    before = torch.get_rng_state()
    first, second = (np.asarray(found.draw(PROMPT)) for _ in range(2))
    assert (first == second).all()
    assert first.std() > 5
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize("name", K_DIFFUSION_NAMES)
def test_a_name_of_k_diffusion_is_the_same_sampler(name: str) -> None:
    draws = [np.asarray(drawing("sd15", sampler).draw(PROMPT)) for sampler in (name, K_DIFFUSION_NAMES[name])]
    assert (draws[0] == draws[1]).all()


def test_the_samplers_of_the_preset_can_all_be_drawn_with() -> None:
    assert set(NAMES) == {*SAMPLERS, *K_DIFFUSION_NAMES}


def test_a_prompt_may_have_a_sampler_of_its_own() -> None:
    plain, lms = drawing("sd15", "euler"), drawing("sd15", "lms")
    own = np.asarray(plain.draw(replace(PROMPT, sampler="lms")))
    assert (own == np.asarray(lms.draw(PROMPT))).all()
    assert (own != np.asarray(plain.draw(PROMPT))).any()


def test_models_are_left_as_they_were() -> None:
    found = drawing("sd15", "ddim")
    found.unet.train()
    found.unet.mid_block.eval()  # a part in another mode than the whole
    found.vae.requires_grad_(False)
    models = [found.unet, found.vae, *found.text_encoders]
    modes = [part.training for model in models for part in model.modules()]
    trained = [weight.requires_grad for model in models for weight in model.parameters()]
    found.draw(PROMPT)
    assert [part.training for model in models for part in model.modules()] == modes
    assert [weight.requires_grad for model in models for weight in model.parameters()] == trained
    assert True in modes
    assert False in modes
