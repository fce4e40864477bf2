"""The restoration trainer: a LoRA that restores a picture in one step of a diffusion model, and its discriminator."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_trainer.config.restoration import RestorationPreset
from lora_trainer.data.degraded_partners import degraded_partners, sharpened_originals
from lora_trainer.draws import draw_key
from lora_trainer.engine.ema import Ema
from lora_trainer.engine.optimizers import Group, make_optimizer
from lora_trainer.engine.phase import Batch, DrawnPicture, Phase, Stateful
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.schedules import unchanged
from lora_trainer.losses.deep_similarity import open_lpips
from lora_trainer.losses.one_step import shares_at
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.restoration.backbone import open_backbone
from lora_trainer.models.restoration.checkpoint import load_restorer, lora_parameters, read_restorer
from lora_trainer.models.restoration.heads import build_heads
from lora_trainer.models.restoration.lora import add_restoration_lora, lora_paths
from lora_trainer.models.restoration.tiles import Tiling
from lora_trainer.trainers.job import FollowsJob
from lora_trainer.trainers.restoration.base import restoration_base
from lora_trainer.trainers.restoration.checks import degradation_settings
from lora_trainer.trainers.restoration.data import RestorationData
from lora_trainer.trainers.restoration.export import HYPIR_NAMES, SUFFIX, RestorerFiles, restorer_facts
from lora_trainer.trainers.restoration.gradients import GradientLengths
from lora_trainer.trainers.restoration.job import RestorationJob
from lora_trainer.trainers.restoration.networks import OneStep
from lora_trainer.trainers.restoration.objective import (
    DISCRIMINATOR,
    GENERATOR,
    JUDGED,
    Judge,
    RestorationObjective,
    as_shares,
)
from lora_trainer.trainers.restoration.painter import Painter
from lora_trainer.trainers.restoration.prompts import Prompts, prepared_prompts
from lora_trainer.trainers.restoration.validation import SHOWN, Shown, Swap, Validator, draw_pictures, held_out_examples

log = logging.getLogger(__name__)


@dataclass
class RestorationTrainer(FollowsJob):
    """What the loop runs (engine.phase.Trainer)."""

    job: RestorationJob
    phases: Sequence[Phase]
    data: RestorationData
    inputs: Inputs
    painter: Painter
    files: RestorerFiles
    gradients: GradientLengths
    ema: Ema | None = None
    validator: Validator | None = None
    state: Mapping[str, Stateful] = field(default_factory=dict)
    suffix: str = SUFFIX
    largest_step: int = 0  # all batches are alike

    def prepare(self, step: int, micros: list[Batch]) -> list[Batch]:
        """Latents and encoded prompts, and the degraded pictures where they are made here."""
        return [self.inputs.make(step, micro) for micro in micros]

    def after_step(self, step: int) -> Mapping[str, float]:
        if self.ema is not None:
            self.ema.update(step)
        return self.gradients.take()

    def export(self, stem: Path, done: int) -> Path:
        """The last one has a folder beside it, as all before."""
        if done == self.total_steps and stem.name == self.job.preset.output_name:
            folder = self.files.write(stem.with_name(HYPIR_NAMES.after_step(stem.name, 0, done)), done)
            log.info("saved %s", folder)
        return self.files.write(stem, done)

    def preview(self, folder: Path, label: str, done: int) -> Sequence[DrawnPicture]:
        """The pictures of the first steps, and of what is held out the first of each type: degraded and restored."""
        versions: dict[str, Callable[[], Swap]] = {f"step {done}": contextlib.nullcontext}
        if self.ema is not None:
            versions["average"] = self.ema.swapped
        sheets = {"trained": self._first_pictures()}
        if self.job.held_out is not None:
            sheets["held_out"] = held_out_examples(self.job.held_out, self.job.preset.out_size)
        drawn = []
        for name, shown in sheets.items():
            path = folder / f"{self.job.preset.output_name}_{label}_{name}.png"
            draw_pictures(path, self.painter, shown, versions)
            drawn.append(DrawnPicture(f"image/{name}", path))
        return drawn

    def validate(self, folder: Path, label: str, done: int) -> Mapping[str, float]:
        if self.validator is None:
            return {}
        if not done:
            whole = {key: each for key, each in self.validator.measure_input().items() if key.count("/") == 1}
            spoken = ", ".join(f"{key} {each:.4f}" for key, each in whole.items())
            log.info("the held-out pictures before they are restored: %s", spoken)
        with self._averaged():
            return self.validator.measure()

    def _averaged(self) -> contextlib.AbstractContextManager[object]:
        return self.ema.swapped() if self.ema is not None else contextlib.nullcontext()

    def _first_pictures(self) -> list[Shown]:
        found: list[Shown] = []
        for step in range(SHOWN):
            for micro in self.data.crops(step):
                gt, lq = (as_shares(images)[:, None] for images in self.inputs.pictures(micro))
                found += [Shown(*row) for row in zip(lq, gt, micro["prompts"], strict=True)]
            if len(found) >= SHOWN:
                break
        return found[:SHOWN]


@dataclass(frozen=True)
class Inputs:
    """How a micro-batch of stored pixels becomes what the losses see."""

    preset: RestorationPreset
    networks: OneStep
    prompts: Prompts
    precision: Precision
    device: torch.device

    def make(self, step: int, micro: Batch) -> Batch:
        preset = self.preset
        batch = {
            "step": step,
            "lambdas": preset.lambdas_at(step),
            "penalised": preset.penalises(step),
            **{key: micro[key] for key in ("names", "weights", "total")},
            **self._seen(micro),
        }
        judged = {key.removeprefix(JUDGED): value for key, value in micro.items() if key.startswith(JUDGED)}
        if judged:
            batch |= {f"{JUDGED}{key}": value for key, value in self._seen(judged).items()}
        return batch

    def pictures(self, micro: Batch) -> tuple[Tensor, Tensor]:
        """gt and lq of a micro-batch, from -1 to 1."""
        gt = micro["gt"].to(self.device).float() / 255
        if "lq" in micro:
            lq = micro["lq"].to(self.device).float() / 255
        else:
            gt, lq = self._degraded(gt, micro["keys"])
        return gt * 2 - 1, lq * 2 - 1

    @torch.no_grad()
    def _seen(self, micro: Batch) -> Batch:
        gt, lq = self.pictures(micro)
        with self.precision.autocast():
            latents = self.networks.latents(lq, micro["noise"])
            hidden = self.prompts(micro["prompts"])
        return {"gt": gt, "latents": latents, "hidden": hidden}

    def _degraded(self, gt: Tensor, keys: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The original as it is to be restored, and its degraded partner."""
        if self.preset.use_sharpener:
            gt = sharpened_originals(gt)
        return gt, degraded_partners(gt, keys, degradation_settings(self.preset), self.preset.stage2_scale)


def build_restoration(
    job: RestorationJob, processes: Processes, precision: Precision, dry: bool = False
) -> RestorationTrainer:
    """Load the networks, put the LoRA in, and make the losses, optimizers and the average."""
    preset, device = job.preset, processes.device
    base = _base(job, precision, device)
    networks = OneStep(base.unet, base.vae, base.prediction, preset.model_t, shares_at(preset.coeff_t))
    prompts = prepared_prompts(base, _known_prompts(job), device)
    lpips = None
    if preset.needs_lpips:
        lpips = open_lpips(preset.lpips_weights, "lpips_weights").requires_grad_(False).eval().to(device)
    objective = RestorationObjective(networks, lpips, _judge(job, precision, device))
    weights = lora_parameters(base.unet)
    ema = Ema(base.unet, preset.average_decay, only=weights) if preset.average_decay else None
    every = preset.log_grad_steps if processes.is_main else 0
    gradients = GradientLengths(objective, preset.log_grad_modules, every, precision)
    painter = Painter(networks, prompts, precision, device, Tiling(preset.out_size, preset.out_size // 2))
    validator = None
    if job.held_out is not None and lpips is not None and processes.is_main and not dry:
        items = job.held_out.first_of_each_kind(preset.num_samples_per_type)
        validator = Validator(painter, job.held_out, items, preset.val_batch_size, lpips)
    for note in job.pairs.notes:
        log.info("note: %s", note)
    log.info("%s", job.spoken)
    return RestorationTrainer(
        job,
        _phases(job, objective, weights, gradients),
        job.data(processes.rank, networks.latent_channels),
        Inputs(preset, networks, prompts, precision, device),
        painter,
        RestorerFiles(base.unet, ema, restorer_facts(preset, base.prediction)),
        gradients,
        ema,
        validator,
        {"ema": ema} if ema is not None else {},
    )


def _base(job: RestorationJob, precision: Precision, device: torch.device) -> BaseModel:
    """The base model on the device, with the LoRA in its UNet; the text encoder is placed by whoever encodes."""
    preset = job.preset
    base = restoration_base(job.checkpoint, precision, device)
    base.unet.train()  # for gradient checkpointing; it has no dropout
    if preset.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
        base.vae.enable_gradient_checkpointing()
    paths = lora_paths(base.unet, preset.lora_modules, "lora_modules")
    add_restoration_lora(base.unet, paths, preset.lora_rank, job.seed)
    if preset.weight_path:
        path = Path(preset.weight_path)
        load_restorer(base.unet, path, read_restorer(path))
        log.info("the LoRA begins with %s", path)
    return base


def _known_prompts(job: RestorationJob) -> list[str]:
    empty = [""] if job.preset.p_empty_prompt else []
    return [*job.pairs.prompts, *(job.held_out.prompts if job.held_out else ()), *empty]


def _judge(job: RestorationJob, precision: Precision, device: torch.device) -> Judge | None:
    preset = job.preset
    if not preset.has_discriminator:
        return None
    backbone = open_backbone(preset.discriminator_backbone, "discriminator_backbone", precision.dtype).to(device)
    heads = build_heads(backbone.channels, draw_key(job.seed, "discriminator")).to(device)
    return Judge(backbone, heads, preset.r1_gamma, preset.r1_interval)


def _phases(
    job: RestorationJob,
    objective: RestorationObjective,
    weights: Mapping[str, nn.Parameter],
    gradients: GradientLengths,
) -> list[Phase]:
    preset, norm = job.preset, job.preset.max_grad_norm
    unet = objective.networks.unet

    def measure(micros: Sequence[Batch]) -> None:
        if gradients.due(micros[0]["step"]):
            gradients.measure(unet, micros[0])

    optimizer = _optimizer(preset, GENERATOR, preset.lr_G, weights)
    phases = [Phase(GENERATOR, unet, weights, optimizer, objective.generator_loss, unchanged, norm, begin=measure)]
    if objective.judge is None:
        return phases
    heads = objective.judge.heads
    learnt = dict(heads.named_parameters())
    phases.append(
        Phase(
            DISCRIMINATOR,
            heads,
            learnt,
            _optimizer(preset, DISCRIMINATOR, preset.lr_D, learnt),
            objective.discriminator_loss,
            unchanged,
            norm,
            due=lambda step: any(step in steps for steps in preset.judged_steps),
            begin=objective.refine_heads,
        )
    )
    return phases


def _optimizer(
    preset: RestorationPreset, name: str, rate: float, weights: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    group = Group(name, rate, weights)
    return make_optimizer(preset.optimizer_type, [group], preset.optimizer_options, key="opt_kwargs")
