"""Training the VAE of a model, from random weights or from trained ones; exported as whole models."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lora_trainer.data.batches import Share
from lora_trainer.engine.ema import Ema
from lora_trainer.engine.everydream_schedules import RateCurve, rate_curve
from lora_trainer.engine.optimizers import Group
from lora_trainer.engine.phase import Batch, DrawnPicture, Phase
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.losses.latents import warmed_up
from lora_trainer.models.base_model import BaseModel, load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.models.latent_scale import latent_scale, normalise_latents, silence_posterior
from lora_trainer.trainers.finetune.checks import first_average
from lora_trainer.trainers.finetune.export import ModelFiles, model_files
from lora_trainer.trainers.finetune.job import FinetuneJob
from lora_trainer.trainers.finetune.names import AVERAGED
from lora_trainer.trainers.finetune.optimization import UNET, finetune_optimizer, spoken_rate
from lora_trainer.trainers.finetune.pictures import say_about_pictures, usage_of
from lora_trainer.trainers.finetune.steps import FinetuneSteps
from lora_trainer.trainers.finetune.vae_data import VaeData
from lora_trainer.trainers.finetune.vae_objective import VaeModel, VaeObjective
from lora_trainer.trainers.finetune.vae_pictures import SHOWN, VaePictures, spread_out, write_sheet

log = logging.getLogger(__name__)

MEASURED = 128  # pictures whose latents say what their mean and spread are


@dataclass
class VaeTrainer(FinetuneSteps):
    """What the loop runs (engine.phase.Trainer). `base` has the live VAE; the rest of it is only written."""

    job: FinetuneJob
    base: BaseModel
    phases: Sequence[Phase]
    data: VaeData
    pictures: VaePictures
    curve: RateCurve
    files: ModelFiles
    ema: Ema | None = None
    schedule_folder: Path | None = None

    def prepare(self, step: int, micros: list[Batch]) -> list[Batch]:
        self.write_schedule(step)
        preset = self.job.preset
        weight = 0.0 if preset.vae_decoder_only else preset.vae_kl_weight
        return [{**micro, "kl_weight": warmed_up(weight, step, preset.vae_kl_warmup_steps)} for micro in micros]

    def export(self, stem: Path, done: int) -> Path:
        path = self.files.save(self._written(), stem)
        if self.ema is not None:
            with self.ema.swapped():
                averaged = self.files.save(self._written(), stem.with_name(stem.name + AVERAGED))
            log.info("saved %s", averaged)
        return path

    def preview(self, folder: Path, label: str, done: int) -> Sequence[DrawnPicture]:
        """A sheet of pictures that are measured, or of trained ones, each beside what becomes of it."""
        sets = [pictures.samples for _, pictures in self.job.pictures.measured] or [self.data.pictures.samples]
        shown = spread_out(sets[0], SHOWN)
        versions = {f"step {done}": self.pictures.again(shown)}
        if self.ema is not None:
            with self.ema.swapped():
                versions["average"] = self.pictures.again(shown)
        path = folder / f"{self.job.preset.output_name}_{label}_vae.png"
        write_sheet(path, versions)
        return (DrawnPicture("sample/vae", path),)

    def validate(self, folder: Path, label: str, done: int) -> Mapping[str, float]:
        values: dict[str, float] = {}
        for name, measured in self.job.pictures.measured:
            values |= {f"{key}/{name}": value for key, value in self.pictures.measure(measured.samples).items()}
            if self.ema is not None:
                with self.ema.swapped():
                    found = self.pictures.measure(measured.samples)
                values |= {f"{key}/{name}{AVERAGED}": value for key, value in found.items()}
        return values

    def _written(self) -> BaseModel:
        """The model for the files. Training goes on with latents as they are, whatever is written."""
        preset = self.job.preset
        if preset.vae_decoder_only or (preset.vae_sample_posterior and not preset.vae_unit_latents):
            return self.base
        vae = copy.deepcopy(self.base.vae).float()
        if not preset.vae_sample_posterior:
            silence_posterior(vae)
        if preset.vae_unit_latents:
            samples = spread_out(self.data.pictures.samples, MEASURED)
            normalise_latents(vae, latent_scale(self.pictures.posteriors(vae, samples)))
        return replace(self.base, vae=vae)


def build_vae(job: FinetuneJob, processes: Processes, precision: Precision, dry: bool = False) -> VaeTrainer:
    """Load the model and set up what is trained of its VAE. A dry build writes nothing."""
    preset, trained = job.preset, job.pictures.trained
    base = _loaded(job, processes.device)
    model = VaeModel(base.vae, trains_encoder=not preset.vae_decoder_only)
    objective = _objective(job)
    pictures = VaePictures(model, objective, precision, processes.device)
    usage, share = usage_of(preset, job.seed), Share(processes.rank, processes.world, preset.batch_size)
    data = VaeData(trained, job.plan, usage, share, preset.crop_jitter, preset.vae_crop_px, preset.vae_hue_p)
    curve = rate_curve(
        preset.lr_scheduler, preset.vae_rate(job.total_batch), job.total_steps, preset.lr_warmup_steps,
        preset.lr_decay_steps,
    )  # fmt: skip
    phase = _phase(job, model, objective, curve)
    folder = Path(preset.output_dir)
    writes = processes.is_main and not dry
    if writes:
        say_about_pictures(folder, trained, job.plan)
    for line in (_spoken_rate(job, curve), job.spoken):
        log.info("%s", line)
    if warning := curve.warning(job.total_steps):
        log.warning("VAE: %s", warning)
    if job.average_warning:
        log.warning("%s", job.average_warning)
    files, schedule_folder = model_files(preset, job.checkpoint), folder if preset.write_schedule and writes else None
    return VaeTrainer(job, base, [phase], data, pictures, curve, files, _average(job, phase), schedule_folder)


def plan_vae(trainer: VaeTrainer) -> list[tuple[str, str]]:
    """Rows of a name and a text, for a dry run."""
    job, preset = trainer.job, trainer.job.preset
    numbers = sum(weight.numel() for weight in trainer.phases[0].weights.values())
    part = "all of it" if preset.vae_crop_px == 0 else f"parts of {preset.vae_crop_px} px at most"
    trained = "VAE's decoder" if preset.vae_decoder_only else "VAE"
    return [
        ("base model", str(job.checkpoint.path)),
        ("pictures", f"{len(job.pictures.trained.items)} in {preset.data_root}, {part}"),
        *(("measured", f"{len(pictures.items)} pictures as psnr/{name}") for name, pictures in job.pictures.measured),
        ("trained", f"{numbers:,} numbers of the {trained}"),
        ("losses", ", ".join(f"{name} {weight:g}" for name, weight in _losses(job).items())),
        ("rate", _spoken_rate(job, trainer.curve)),
    ]


def _loaded(job: FinetuneJob, device: torch.device) -> BaseModel:
    """The model in 32 bits, with its VAE on the device."""
    preset = job.preset
    log.info("loading %s", job.checkpoint.path)
    base = load_base_model(job.checkpoint)
    base.vae.to(device).train()
    if preset.full_bf16:
        base.vae.bfloat16()
    if preset.gradient_checkpointing:
        base.vae.enable_gradient_checkpointing()
    if job.checkpoint.layout != "description" and not preset.vae_decoder_only:
        log.warning(
            "the UNet of %s reads the latents of the VAE as it was, and has to be trained anew for those to come; "
            "vae_decoder_only leaves them as they are",
            job.checkpoint.path,
        )
    return base


def _spoken_rate(job: FinetuneJob, curve: RateCurve) -> str:
    preset = job.preset
    said = spoken_rate(curve, preset.optimizer, "lr", preset.lr, job.total_batch if preset.scale_lr else 0)
    return f"VAE: {said}"


def _objective(job: FinetuneJob) -> VaeObjective:
    weights = {name: weight for name, weight in _losses(job).items() if weight}
    return VaeObjective(weights, job.preset.vae_sample_posterior)


def _losses(job: FinetuneJob) -> dict[str, float]:
    preset = job.preset
    return {
        "l1": preset.vae_l1_weight,
        "mse": preset.vae_mse_weight,
        "gradient": preset.vae_gradient_weight,
        "pooled": preset.vae_pooled_weight,
        "chroma": preset.vae_chroma_weight,
    }


def _phase(job: FinetuneJob, model: VaeModel, objective: VaeObjective, curve: RateCurve) -> Phase:
    preset, weights = job.preset, model.trained_weights()
    return Phase(
        "vae",
        model,
        weights,
        finetune_optimizer(preset, {UNET: Group("vae", curve.rate, weights)}),
        objective,
        curve.schedule,
        preset.clip_grad_norm,
        fused=preset.fused_backward_pass,
        rounding_seed=job.seed if preset.full_bf16 else None,
    )


def _average(job: FinetuneJob, phase: Phase) -> Ema | None:
    """Of the trained weights, beginning with them or with another model's. Raises Refusal."""
    preset = job.preset
    if not preset.averages:
        return None
    ema = Ema(phase.module, preset.ema_decay(job.total_steps), only=phase.weights, device=preset.ema_place)
    if (path := first_average(preset)) is not None:
        other = load_base_model(replace(detect(path), prediction=job.checkpoint.prediction))
        named = {f"vae.{name}": weight for name, weight in other.vae.named_parameters()}
        ema.begin_with({name: named[name] for name in phase.weights if name in named}, str(path))
    return ema
