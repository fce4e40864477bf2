"""The finetune trainer: one phase over all weights of UNet and text encoders, exported as whole models."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.config.finetune_saving import OF_ALL_PICTURES, STABILIZED
from lora_trainer.data.batches import Share
from lora_trainer.data.latent_cache import LatentCache
from lora_trainer.engine.ema import Ema
from lora_trainer.engine.phase import Batch, DrawnPicture, Phase
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.errors import Refusal
from lora_trainer.losses.blended_huber import blended_losses
from lora_trainer.losses.weighting import Weighting
from lora_trainer.models.base_model import BaseModel, load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.models.text_encoding import SDXL_SKIP
from lora_trainer.trainers.diffusion.base import compile_unet, encode_pictures, forget_activations, load_base, place_vae
from lora_trainer.trainers.diffusion.ladder import first_rung
from lora_trainer.trainers.diffusion.model import DiffusionModel
from lora_trainer.trainers.diffusion.objective import Objective
from lora_trainer.trainers.diffusion.previews import Previews, gathered
from lora_trainer.trainers.diffusion.sample_prompts import SamplePrompt
from lora_trainer.trainers.diffusion.sampling import Drawing, Sampler
from lora_trainer.trainers.diffusion.text import CaptionTokens, say_about_captions
from lora_trainer.trainers.diffusion.validation import DiffusionValidator, encode_held_out
from lora_trainer.trainers.finetune.checks import check_model_folder, check_prediction, first_average, prompt_file
from lora_trainer.trainers.finetune.data import FinetuneData, FinetuneNoise
from lora_trainer.trainers.finetune.export import ModelFiles, model_files
from lora_trainer.trainers.finetune.job import FinetuneJob
from lora_trainer.trainers.finetune.names import AVERAGED
from lora_trainer.trainers.finetune.optimization import (
    finetune_groups,
    finetune_optimizer,
    schedules_of,
    spoken_rates,
    trained_weights,
)
from lora_trainer.trainers.finetune.pictures import (
    say_about_pictures,
    usage_of,
)
from lora_trainer.trainers.finetune.schedule import FinetuneRates, finetune_rates_of
from lora_trainer.trainers.finetune.steps import FinetuneSteps
from lora_trainer.trainers.finetune.vae import VaeTrainer, build_vae

log = logging.getLogger(__name__)

TOKENS = 75  # of a caption, as far as it is read
CONTEXT_TOKENS = TOKENS + 2


@dataclass
class FinetuneTrainer(FinetuneSteps):
    """What the loop runs (engine.phase.Trainer). `exported` has the weights of `base` in the format of files."""

    job: FinetuneJob
    base: BaseModel
    exported: BaseModel
    phases: Sequence[Phase]
    data: FinetuneData
    rates: FinetuneRates
    precision: Precision
    files: ModelFiles
    ema: Ema | None = None
    validators: Mapping[str, DiffusionValidator] = field(default_factory=dict)
    schedule_folder: Path | None = None

    def prepare(self, step: int, micros: list[Batch]) -> list[Batch]:
        self.write_schedule(step)
        return micros

    def export(self, stem: Path, done: int) -> Path:
        path = self.files.save(self.exported, stem)
        if self.ema is not None:
            with self.ema.written():
                averaged = self.files.save(self.exported, stem.with_name(stem.name + AVERAGED))
            log.info("saved %s", averaged)
        return path

    def preview(self, folder: Path, label: str, done: int) -> Sequence[DrawnPicture]:
        preset, drawn = self.job.preset, list[DrawnPicture]()
        if self.ema is None or preset.ema_sample_nonema_model:
            drawn += self._draw(folder, preset.output_name, label, done)
        if self.ema is not None and (preset.ema_sample_ema_model or not preset.ema_sample_nonema_model):
            with self.ema.swapped():
                pictures = self._draw(folder, f"{preset.output_name}{AVERAGED}", label, done)
            drawn += [replace(picture, name=f"{picture.name}{AVERAGED}") for picture in pictures]
        return drawn

    def _draw(self, folder: Path, name: str, label: str, done: int) -> list[DrawnPicture]:
        base, job = self.base, self.job
        drawing = Drawing(
            base.kind,
            base.unet,
            base.vae,
            base.text_encoders,
            base.tokenizers,
            clip_skip_of(job.preset),
            Sampler("ddim", base.prediction == "v_prediction", base.zero_terminal_snr),
            dtype=self.precision.dtype,
        )
        model = job.checkpoint.path.stem
        previews = Previews(folder, name, self._prompts(), model, self.steps_per_epoch, job.fingerprint)
        with gathered(base.unet.device, base.vae, *base.text_encoders):
            return previews.draw(drawing, label, done)

    def _prompts(self) -> Sequence[SamplePrompt]:
        """As the file is now: people change it while the run goes on. When it was changed for the worse, those that
        there were at the start."""
        job = self.job
        try:
            return prompt_file(job.preset, job.seed, job.captions).prompts or job.prompts.prompts
        except Refusal as refusal:
            log.warning("%s; the prompts of the start are drawn", refusal)
            return job.prompts.prompts

    def validate(self, folder: Path, label: str, done: int) -> Mapping[str, float]:
        """The losses under EveryDream2's names."""
        means = {name: validator.measure() for name, validator in self.validators.items()}
        values = {f"loss/{name}": found["loss"] for name, found in means.items()}
        unseen = {name: len(self.validators[name].held_out) for name in means if name != STABILIZED}
        if len(unseen) > 1:
            total = sum(means[name]["loss"] * count for name, count in unseen.items())
            values[f"loss/{OF_ALL_PICTURES}"] = total / sum(unseen.values())
        return values


def build_finetune(
    job: FinetuneJob, processes: Processes, precision: Precision, dry: bool = False
) -> FinetuneTrainer | VaeTrainer:
    """Load the model, encode the pictures where they are cached, and set up what is trained. A dry build encodes none
    and writes nothing."""
    preset, device = job.preset, processes.device
    check_model_folder(preset, make=not dry)
    if preset.train_vae:
        return build_vae(job, processes, precision, dry)
    if job.begins_with_random_vae:
        log.warning("the VAE of this model is random, and its latents say nothing; train it first, with train_vae")
    ztsnr = preset.enable_zero_terminal_snr
    loaded = load_base(job.checkpoint, torch.float32, device, preset.attention, zero_terminal_snr=ztsnr, placed=False)
    check_prediction(replace(job.checkpoint, kind=loaded.kind))
    if loaded.kind == "sdxl" and preset.clip_skip not in (0, SDXL_SKIP):
        log.info("without effect: clip_skip: Stable Diffusion XL always takes the layer before the last")
    if loaded.zero_terminal_snr and loaded.prediction == "epsilon":
        log.warning("the last timestep is noise alone, from which a model that predicts noise learns nothing")
    base, exported = _placed(preset, loaded, precision, device)
    forget_activations(base, first_rung(preset.gradient_checkpointing))
    if preset.torch_compile and not dry:
        compile_unet(base)
    tokens = CaptionTokens(base.tokenizers, TOKENS)
    trained = job.pictures.trained
    say_about_captions({item.name: [item.caption.text] for item in trained.items}, tokens)
    measures = processes.is_main and not dry
    held_out = _held_out(job, base) if measures else {}
    latents = _latents(job, base, processes) if preset.caches_latents and not dry else None
    if latents is not None and device.type == "cuda":
        base.vae.to("cpu")
    rates = finetune_rates_of(preset, job.total_steps, job.total_batch)
    phase = _phase(job, base, rates, device)
    validators = {name: _validator(job, phase, pictures, tokens, precision) for name, pictures in held_out.items()}
    folder = Path(preset.output_dir)
    if measures:
        say_about_pictures(folder, trained, job.plan)
    for line in (*spoken_rates(preset, rates, job.total_batch), job.spoken):
        log.info("%s", line)
    for warning in filter(None, (*rates.warnings(job.total_steps), job.average_warning)):
        log.warning("%s", warning)
    return FinetuneTrainer(
        job,
        base,
        exported,
        [phase],
        _data(job, base, tokens, latents, processes),
        rates,
        precision,
        model_files(preset, job.checkpoint),
        _average(job, phase),
        validators,
        folder if preset.write_schedule and measures else None,
    )


def clip_skip_of(preset: FinetunePreset) -> int:
    """EveryDream2's 0 and 1 are both the last layer."""
    return max(1, preset.clip_skip)


def _placed(
    preset: FinetunePreset, loaded: BaseModel, precision: Precision, device: torch.device
) -> tuple[BaseModel, BaseModel]:
    """The model that works, and the one that is written: what is not trained works in the format of the passes on a
    GPU, and its files shall have it as it was."""

    def working(model: Any, trained: bool) -> Any:
        half = trained and preset.full_bf16
        fast = not trained and device.type == "cuda" and precision.dtype != torch.float32
        if not (half or fast):
            return model.to(device)
        dtype = torch.bfloat16 if half else precision.dtype
        # PyTorch's own `to`: that of diffusers warns of layers to keep in float32, of which there are none
        return nn.Module.to(model if half else copy.deepcopy(model), device, dtype)

    vae = copy.deepcopy(loaded.vae) if device.type == "cuda" else loaded.vae
    place_vae(vae, precision.dtype, device)
    base = replace(
        loaded,
        unet=working(loaded.unet, preset.trains_unet),
        text_encoders=tuple(working(encoder, preset.trains_text_encoder) for encoder in loaded.text_encoders),
        vae=vae,
    )
    return base, loaded


def _phase(job: FinetuneJob, base: BaseModel, rates: FinetuneRates, device: torch.device) -> Phase:
    preset = job.preset
    model = DiffusionModel(base.kind, base.unet, base.text_encoders, clip_skip_of(preset))
    weights = trained_weights(preset, base, model)
    groups = finetune_groups(rates, weights)
    schedules = schedules_of(rates)
    return Phase(
        "model",
        model,
        weights,
        finetune_optimizer(preset, groups),
        _objective(job, base, device, preset.loss_type),
        next(iter(schedules.values())),
        preset.clip_grad_norm,
        schedules=schedules,
        fused=preset.fused_backward_pass,
        rounding_seed=job.seed if preset.full_bf16 else None,
    )


def _objective(job: FinetuneJob, base: BaseModel, device: torch.device, loss_type: Any) -> Objective:
    v_prediction = base.prediction == "v_prediction"
    weighting = Weighting(v_prediction, job.preset.min_snr_gamma, False, 0.0, False)
    compare = partial(blended_losses, loss_type=loss_type)
    return Objective(base.vae, weighting, 0.0, base.zero_terminal_snr, device, compare)


def _average(job: FinetuneJob, phase: Phase) -> Ema | None:
    """Of the trained weights, beginning with them or with those of another model. Raises Refusal."""
    preset = job.preset
    if not preset.averages:
        return None
    ema = Ema(phase.module, preset.ema_decay(job.total_steps), only=phase.weights, device=preset.ema_place)
    if (path := first_average(preset)) is not None:
        other = load_base_model(replace(detect(path), prediction=job.checkpoint.prediction))
        model = DiffusionModel(other.kind, other.unet, other.text_encoders, 1)
        named = dict(model.named_parameters())
        ema.begin_with({name: named[name] for name in phase.weights if name in named}, str(path))
    return ema


def _data(
    job: FinetuneJob, base: BaseModel, tokens: CaptionTokens, latents: LatentCache | None, processes: Processes
) -> FinetuneData:
    preset = job.preset
    noise = FinetuneNoise(
        preset.zero_frequency_noise_ratio,
        preset.pyramid_noise_discount,
        preset.embedding_perturbation,
        (CONTEXT_TOKENS, int(base.unet.config.cross_attention_dim)),
        preset.timestep_start,
        preset.timestep_end,
    )
    share = Share(processes.rank, processes.world, preset.batch_size)
    scale, usage = float(base.vae.config.scaling_factor), usage_of(preset, job.seed)
    return FinetuneData(job.pictures.trained, job.plan, usage, tokens, noise, share, latents, scale, preset.crop_jitter)


def _held_out(job: FinetuneJob, base: BaseModel) -> dict[str, Any]:
    usage = usage_of(job.preset, job.seed)
    return {
        name: encode_held_out(pictures.samples, [usage.undropped(item, 0) for item in pictures.items], base.vae)
        for name, pictures in job.pictures.measured
    }


def _validator(
    job: FinetuneJob, phase: Phase, held_out: Any, tokens: CaptionTokens, precision: Precision
) -> DiffusionValidator:
    """Measured by the square of the difference, whatever the training's loss, so that runs can be compared."""
    model, objective = phase.module, phase.loss
    assert isinstance(model, DiffusionModel) and isinstance(objective, Objective)
    plain = replace(objective, compare=partial(blended_losses, loss_type="mse"))
    batch_size = job.preset.val_batch_size or job.preset.batch_size
    return DiffusionValidator(model, plain, held_out, tokens, precision, job.validation_seed, batch_size)


def _latents(job: FinetuneJob, base: BaseModel, processes: Processes) -> LatentCache:
    preset, trained = job.preset, job.pictures.trained
    usage = usage_of(preset, job.seed)
    root = Path(preset.data_root)
    return encode_pictures(
        trained.samples, base.vae, job.checkpoint.path, processes,
        mirrored=any(usage.may_mirror(item) for item in trained.items),
        folder=(root if root.is_dir() else root.parent) / ".latents" if preset.cache_latents_to_disk else None,
    )  # fmt: skip
