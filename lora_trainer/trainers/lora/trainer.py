"""The LoRA trainer: one phase over UNet and text encoders, exported in kohya's format."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from lora_trainer import atomic
from lora_trainer.config.lora import LoraPreset
from lora_trainer.data.batches import Share, largest_batch_step
from lora_trainer.data.captions import constant_captions, unvaried_captions
from lora_trainer.data.latent_cache import LatentCache, Team
from lora_trainer.engine.phase import Batch, DrawnPicture, Phase, Stateful
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.losses.huber import Criterion, comparison
from lora_trainer.losses.noise_schedule import alphas_cumprod
from lora_trainer.losses.weighting import Weighting
from lora_trainer.models.adapter_file import PRECISIONS, adapter_file_bytes, flat_tensors
from lora_trainer.models.adapters.network import (
    PEFT,
    adapter_tensors,
    freeze_unreachable,
    limit_norms,
    set_adapter_dtype,
)
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.eight_bit_products import multiplies_int8
from lora_trainer.models.eight_bits import cast_to_fp8, store_in_8_bits
from lora_trainer.models.kohya_keys import Part, by_kohya_name
from lora_trainer.models.text_encoding import reachable_layers
from lora_trainer.models.weights_identity import weights_identity
from lora_trainer.trainers.diffusion.base import (
    TEXT_PARTS,
    compile_unet,
    encode_pictures,
    forget_activations,
    load_base,
    parts_of,
    place_vae,
)
from lora_trainer.trainers.diffusion.data import DiffusionData, NoiseSettings
from lora_trainer.trainers.diffusion.ladder import first_rung
from lora_trainer.trainers.diffusion.model import DiffusionModel
from lora_trainer.trainers.diffusion.objective import Objective
from lora_trainer.trainers.diffusion.previews import Previews, gathered
from lora_trainer.trainers.diffusion.sampling import Drawing, Sampler
from lora_trainer.trainers.diffusion.text import CaptionTokens, say_about_captions, with_cache
from lora_trainer.trainers.diffusion.validation import DiffusionValidator, encode_held_out
from lora_trainer.trainers.lora.job import LoraJob
from lora_trainer.trainers.lora.metadata import LoraFacts
from lora_trainer.trainers.lora.network import LoraNetwork, Names, build_network
from lora_trainer.trainers.lora.optimization import lora_groups, lora_optimizer
from lora_trainer.trainers.lora.schedule import lora_schedule

log = logging.getLogger(__name__)


@dataclass
class LoraTrainer:
    """What the loop runs (engine.phase.Trainer)."""

    job: LoraJob
    base: BaseModel
    phases: Sequence[Phase]
    data: DiffusionData
    total_steps: int
    names: Mapping[Part, Mapping[str, str]]  # kohya's name of each layer, by part and path
    facts: LoraFacts
    validator: DiffusionValidator | None = None
    state: Mapping[str, Stateful] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        return f".{self.job.preset.save_model_as}"

    @property
    def steps_per_epoch(self) -> int:
        return self.data.plan.steps_per_epoch

    @property
    def total_batch(self) -> int:
        return self.job.total_batch

    @property
    def largest_step(self) -> int:
        return largest_batch_step(self.data.plan)

    def prepare(self, step: int, micros: list[Batch]) -> list[Batch]:
        return micros

    def after_step(self, step: int) -> None:
        if largest := self.job.preset.scale_weight_norms:
            for model in parts_of(self.base).values():
                limit_norms(model, largest)

    def export(self, stem: Path, done: int) -> Path:
        models = parts_of(self.base)
        layers = by_kohya_name(self.names, {part: adapter_tensors(models[part]) for part in self.names})
        path = stem.with_name(stem.name + self.suffix)
        dtype = PRECISIONS[self.job.preset.save_precision]
        if self.suffix == ".safetensors":
            metadata = self.facts.metadata(done, self.total_steps, self.steps_per_epoch)
            atomic.write_bytes(path, adapter_file_bytes(layers, dtype, metadata))
        else:
            with atomic.staged_file(path) as file:  # an open file: torch puts a path's name into the bytes
                torch.save(flat_tensors(layers, dtype), file)
        return path

    def preview(self, folder: Path, label: str, done: int) -> Sequence[DrawnPicture]:
        base, preset, job = self.base, self.job.preset, self.job
        drawing = Drawing(
            base.kind,
            base.unet,
            base.vae,
            base.text_encoders,
            base.tokenizers,
            preset.clip_skip,
            Sampler(preset.sample_sampler, base.prediction == "v_prediction", base.zero_terminal_snr),
            preset.weighted_captions,
        )
        model = job.checkpoint.path.stem
        previews = Previews(folder, preset.output_name, job.prompts, model, self.steps_per_epoch, job.fingerprint)
        with gathered(base.unet.device, base.vae, *base.text_encoders):
            return previews.draw(drawing, label, done)

    def validate(self, folder: Path, label: str, done: int) -> Mapping[str, float]:
        return self.validator.measure() if self.validator else {}


def build_lora(job: LoraJob, processes: Processes, precision: Precision, dry: bool = False) -> LoraTrainer:
    """Load the models, put the LoRA in, encode the pictures. A dry build encodes none; its steps do it themselves."""
    preset, device = job.preset, processes.device
    base = load_base(
        job.checkpoint, precision.dtype, device, preset.attention_kernel,
        vae=preset.vae, zero_terminal_snr=preset.zero_terminal_snr,
    )  # fmt: skip
    place_vae(base.vae, torch.float32 if preset.sdxl_no_half_vae else precision.dtype, device)
    _store_in_8_bits(base, preset, precision, device)
    if preset.use_channels_last:
        base.unet.to(memory_format=torch.channels_last)
    names = _add_lora(job, base)
    forget_activations(base, first_rung(preset.gradient_checkpointing))  # now: LyCORIS finds layers by their class
    if preset.torch_compile and not dry:
        compile_unet(base)
    if preset.full_fp16 or preset.full_bf16:
        for model in parts_of(base).values():
            set_adapter_dtype(model, precision.dtype)
    tokens = _tokens(job, base, processes, dry)
    captions = [unvaried_captions(sample.caption, job.captions_of(sample))[0] for sample in job.held_out]
    held_out = encode_held_out(job.held_out, captions, base.vae) if processes.is_main and not dry else ()
    latents = _latents(job, base, processes) if preset.caches_latents and not dry else None
    if latents is not None and device.type == "cuda":
        base.vae.to("cpu")
    data = DiffusionData(
        job.samples,
        job.subsets,
        job.plan,
        tokens,
        _noise_settings(job),
        [Share(processes.rank, processes.world, data_set.batch_size) for data_set in job.sets],
        latents,
        float(base.vae.config.scaling_factor),
        preset.prior_loss_weight,
        job.total_steps,
        LoraNetwork(preset, base).draws,
    )
    total_steps = job.total_steps
    log.info(
        "%d pictures, %d with their repeats, in %d buckets: %d steps an epoch, %d in all",
        job.summary.pictures,
        job.summary.uses,
        len(job.summary.uses_in),
        data.plan.steps_per_epoch,
        total_steps,
    )
    phase = _phase(job, base, names, device, total_steps)
    validator = None
    if held_out:
        model, objective = cast(DiffusionModel, phase.module), cast(Objective, phase.loss)
        seed, batch_size = job.validation_seed, preset.batch_size
        validator = DiffusionValidator(model, objective, held_out, tokens, precision, seed, batch_size)
    return LoraTrainer(job, base, [phase], data, total_steps, names, LoraFacts(job, base), validator)


def _store_in_8_bits(base: BaseModel, preset: LoraPreset, precision: Precision, device: torch.device) -> None:
    """int8_base, int8_matmul, fp8_base and fp8_base_unet; float8 where the passes have 16 bits to make of it."""
    unet_alone = preset.fp8_base_unet and not (preset.fp8_base or preset.int8_base)
    if not (preset.int8_base or preset.fp8_base or unet_alone):
        return
    if precision.name == "no" and not preset.int8_base:
        log.info("the frozen weights stay in 32 bits, as the passes run in them on this device")
        return
    multiply = preset.int8_matmul
    if multiply and not multiplies_int8(device):
        log.warning("int8_matmul: this device multiplies no int8, so the weights are made wide instead")
        multiply = False
    for model in [base.unet, *(() if unet_alone else base.text_encoders)]:
        if LoraNetwork(preset, base).algo == PEFT:
            store_in_8_bits(model, "int8" if preset.int8_base else "fp8", multiply)
        else:
            cast_to_fp8(model)


def _add_lora(job: LoraJob, base: BaseModel) -> Names:
    """Put the layers into each part that is trained. Gives kohya's names of them."""
    preset = job.preset
    rates = {"unet": preset.unet_rate, **dict.fromkeys(TEXT_PARTS, preset.text_encoder_rate)}
    models = parts_of(base)
    for model in models.values():
        model.requires_grad_(False)
    trained = {part: model for part, model in models.items() if rates[part] is not None}
    names = build_network(LoraNetwork(preset, base, job.resumed.weights), trained, job.seed)
    for index, (part, encoder) in enumerate((part, models[part]) for part in TEXT_PARTS if part in models):
        if part in names:
            layers = cast(Any, encoder).config.num_hidden_layers
            freeze_unreachable(encoder, reachable_layers(base.kind, index, layers, preset.clip_skip))
    return names


def _phase(job: LoraJob, base: BaseModel, names: Names, device: torch.device, total_steps: int) -> Phase:
    preset = job.preset
    model = DiffusionModel(base.kind, base.unet, base.text_encoders, preset.clip_skip)
    groups = lora_groups(preset, base, names, model, total_steps)
    optimizer = lora_optimizer(preset, groups)
    weighting = Weighting(
        base.prediction == "v_prediction",
        preset.min_snr_gamma,
        preset.scale_v_pred_loss_like_noise_pred,
        preset.v_pred_like_loss,
        preset.debiased_estimation_loss,
    )
    criterion = Criterion(preset.loss_type, preset.huber_schedule, preset.huber_c, preset.huber_scale)
    alphas = alphas_cumprod(zero_terminal_snr=base.zero_terminal_snr).to(device)
    compare, scale = comparison(criterion, alphas), preset.adaptive_noise_scale
    objective = Objective(base.vae, weighting, scale, base.zero_terminal_snr, device, compare)
    weights = {key: weight for group in groups for key, weight in group.weights.items()}
    schedule = lora_schedule(preset, total_steps)
    leaves_out = LoraNetwork(preset, base).leaves_weights_out or any(group.until for group in groups)
    clip = preset.max_grad_norm
    return Phase("lora", model, weights, optimizer, objective, schedule, clip, leaves_weights_out=leaves_out)


def _noise_settings(job: LoraJob) -> NoiseSettings:
    preset = job.preset
    plain = preset.noise_offset_type == "Original"
    return NoiseSettings(
        offset=preset.noise_offset if plain else 0.0,
        offset_random_strength=preset.noise_offset_random_strength,
        offset_adaptive_scale=preset.adaptive_noise_scale if plain else 0.0,
        multires_iterations=0 if plain else preset.multires_noise_iterations,
        multires_discount=preset.multires_noise_discount,
        input_gamma=preset.ip_noise_gamma,
        input_gamma_random_strength=preset.ip_noise_gamma_random_strength,
        min_timestep=preset.min_timestep,
        max_timestep=preset.max_timestep,
    )


def _tokens(job: LoraJob, base: BaseModel, processes: Processes, dry: bool) -> CaptionTokens:
    preset, settings = job.preset, job.captions_of
    tokens = CaptionTokens(base.tokenizers, preset.max_token_length, preset.weighted_captions)
    say_about_captions({each.name: unvaried_captions(each.caption, settings(each)) for each in job.samples}, tokens)
    if not preset.caches_text:
        return tokens
    captions = [form for sample in job.samples for form in constant_captions(sample.caption, settings(sample))]
    captions += [form for sample in job.held_out for form in unvaried_captions(sample.caption, settings(sample))]
    on_disk = preset.cache_text_encoder_outputs_to_disk and not dry
    folder = job.cache_folder / ".captions" if on_disk else None
    team = Team(processes.rank, processes.world, processes.gather)
    return with_cache(tokens, captions, base, team, weights_identity(job.checkpoint.path), folder)


def _latents(job: LoraJob, base: BaseModel, processes: Processes) -> LatentCache:
    preset = job.preset
    return encode_pictures(
        job.samples, base.vae, Path(preset.vae) if preset.vae else job.checkpoint.path, processes,
        mirrored=any(subset.flip_aug for subset in job.subsets), batch_size=preset.vae_batch_size,
        folder=job.cache_folder / ".latents" if preset.cache_latents_to_disk else None,
    )  # fmt: skip
