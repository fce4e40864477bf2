"""From a GAN's job to its trainer: networks, what they start from, phases, optimizers, average, files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from lora_trainer import atomic
from lora_trainer.config.gan import GanPreset
from lora_trainer.config.public import public_values
from lora_trainer.engine.optimizers import Group, make_optimizer
from lora_trainer.engine.phase import Batch, Phase, nothing
from lora_trainer.engine.precision import Precision, choose_precision
from lora_trainer.engine.processes import Processes
from lora_trainer.models.gan.augmentation import AugmentPipe
from lora_trainer.models.gan.augmentation_strength import AdaptiveStrength, FixedStrength
from lora_trainer.models.gan.fused_filtering import use_fused_filtering
from lora_trainer.trainers.gan.average import HalfLifeAverage
from lora_trainer.trainers.gan.batches import DISCRIMINATOR, GENERATOR, GRADIENT_PENALTY, PATH_LENGTH, GanBatches
from lora_trainer.trainers.gan.course import Course, course, lazy_adam, rate_factor
from lora_trainer.trainers.gan.job import GanJob, launched
from lora_trainer.trainers.gan.log import keep_log
from lora_trainer.trainers.gan.metrics import GanMetrics
from lora_trainer.trainers.gan.networks import Networks, bound_gradients, build_networks, place
from lora_trainer.trainers.gan.painting import Brush, Eye, Painter
from lora_trainer.trainers.gan.phases import LOSS_NAMES, Contest, PathMean
from lora_trainer.trainers.gan.sheets import Sheet
from lora_trainer.trainers.gan.statistics import Tally
from lora_trainer.trainers.gan.ticks import Ticks
from lora_trainer.trainers.gan.trainer import GanTrainer
from lora_trainer.trainers.gan.transfer import start_from

log = logging.getLogger(__name__)

OPTIONS, LOG = "training_options.json", "log.txt"
BETA1, EPSILON = 0.0, 1e-8
CONSTANT = Course(1.0, 1.0, 0)


def build_gan(job: GanJob, processes: Processes, precision: Precision, dry: bool = False) -> GanTrainer:
    """Make both networks, load what they start from, and put their phases together."""
    preset, device = job.preset, processes.device
    layers = _precision_of_layers(preset, device)
    _set_up_torch(preset, device)
    writes = processes.is_main and not dry
    if writes:
        _write_options(job)
        keep_log(Path(preset.output_dir) / LOG)
    networks = build_networks(preset, job.images, job.seed, layers)
    place(networks, device, layers)
    if preset.fused_filtered_lrelu:
        _fuse_filtering(networks, device, layers)
    ema = _average(preset, networks)
    strength = _strength(preset)
    contest = _contest(job, networks, strength, processes)
    for note in (*job.images.notes, launched(job)):
        if note:
            log.info("note: %s", note)
    log.info("%s", job.spoken)
    return GanTrainer(
        job=job,
        processes=processes,
        networks=networks,
        phases=_phases(preset, networks, contest, layers.name != "no"),
        data=_batches(job, networks, contest, processes.rank),
        contest=contest,
        ema=ema,
        strength=strength,
        fixed_strength=_fixed_strength(preset),
        ticks=Ticks(
            job.total_batch, preset.steps_per_tick, job.total_steps, device,
            Path(preset.output_dir) if writes else None,
        ),
        metrics=None if dry else GanMetrics.build(job, device, processes),
        sheet=Sheet.plan(job.images, networks.generator.z_dim, job.seed),
    )  # fmt: skip


def _precision_of_layers(preset: GanPreset, device: torch.device) -> Precision:
    """Half precision is for GPUs; on a CPU everything is in 32 bits."""
    if device.type != "cuda":
        return Precision("no", device.type)
    precision, note = choose_precision(preset.number_format, device)
    if note:
        log.info("note: %s", note)
    return precision


def _set_up_torch(preset: GanPreset, device: torch.device) -> None:
    torch.set_float32_matmul_precision("high" if preset.allow_tf32 else "highest")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = preset.allow_tf32
        torch.backends.cudnn.benchmark = not preset.nobench


def _fuse_filtering(networks: Networks, device: torch.device, layers: Precision) -> None:
    reason = use_fused_filtering(networks.generator.synthesis, device, layers.dtype)
    if reason is not None:
        log.warning("fused_filtered_lrelu: going on step by step: %s", reason)


def _average(preset: GanPreset, networks: Networks) -> HalfLifeAverage:
    """Of the fresh generator, or of the snapshot's averaged one."""
    half_life = course(preset, preset.ema_kimgs)

    def average() -> HalfLifeAverage:
        return HalfLifeAverage(networks.generator, preset.batch, lambda step: half_life(step) * 1000, preset.ema_rampup)

    if not preset.resume:
        return average()
    return start_from(Path(preset.resume), preset.cfg, networks.generator, networks.discriminator, average)


def _strength(preset: GanPreset) -> FixedStrength:
    if preset.aug == "ada":
        return AdaptiveStrength(target=preset.target, kimg=preset.ada_kimg)
    return FixedStrength(preset.p if preset.aug == "fixed" else 0.0)


def _fixed_strength(preset: GanPreset) -> Course:
    rises = preset.recipe.is_relativistic
    return course(preset, (0.0 if rises else preset.p, preset.p))


def _contest(job: GanJob, networks: Networks, strength: FixedStrength, processes: Processes) -> Contest:
    preset, recipe = job.preset, job.preset.recipe
    pipe = None if preset.aug == "noaug" else AugmentPipe()
    return Contest(
        painter=Painter(networks.generator),
        discriminator=networks.discriminator,
        brush=Brush(job.seed, getattr(networks.generator.synthesis, "noise_size", 0)),
        eye=Eye(job.seed, preset.batch, pipe, strength, preset.blurs),
        tally=Tally(LOSS_NAMES, processes.device),
        path_mean=PathMean(processes.device),
        gamma=course(preset, preset.gammas),
        path_length_weight=preset.path_length_weight,
        lazy={PATH_LENGTH: recipe.lazy_path_length, GRADIENT_PENALTY: recipe.lazy_gradient_penalty},
        sum_over_processes=processes.sum_,
    )


def _batches(job: GanJob, networks: Networks, contest: Contest, rank: int) -> GanBatches:
    draws = {GENERATOR: 1, DISCRIMINATOR: 1}
    if contest.path_length_weight:
        draws[PATH_LENGTH] = contest.lazy[PATH_LENGTH]
    generator = networks.generator
    return GanBatches(
        job.images, job.seed, job.split(rank), generator.z_dim, draws, job.preset.recipe.style_mixing, generator.num_ws
    )


def _phases(preset: GanPreset, networks: Networks, contest: Contest, half: bool) -> Sequence[Phase]:
    """In their order: generator, path length, discriminator, R1. A penalty shares its network's optimizer."""
    recipe = preset.recipe
    of_generator, of_discriminator = networks.trained()
    if half:
        bound_gradients(of_generator)
        bound_gradients(of_discriminator)
    painter, judge, relativistic = contest.painter, networks.discriminator, recipe.is_relativistic
    beta2 = course(preset, preset.beta2s)
    lazy_length = recipe.lazy_path_length if recipe.path_length_weight else 0
    lazy_penalty = 0 if relativistic else recipe.lazy_gradient_penalty
    g_optimizer = _adam("G", of_generator, preset.generator_rates[0], beta2, lazy_length)
    d_optimizer = _adam("D", of_discriminator, preset.discriminator_rates[0], beta2, lazy_penalty)
    factor = rate_factor(preset)

    def follow_beta2(optimizer: torch.optim.Optimizer, micros: Sequence[Batch]) -> None:
        for group in optimizer.param_groups:
            group["betas"] = (BETA1, beta2(micros[0]["step"]))

    def begin_generator(micros: Sequence[Batch]) -> None:
        follow_beta2(g_optimizer, micros)

    def begin_discriminator(micros: Sequence[Batch]) -> None:
        if relativistic:
            follow_beta2(d_optimizer, micros)
        contest.paint_fakes(micros)

    g_loss = contest.relativistic_generator_loss if relativistic else contest.generator_loss
    d_loss = contest.relativistic_discriminator_loss if relativistic else contest.discriminator_loss
    g_begin = begin_generator if relativistic else nothing
    phases = [Phase(GENERATOR, painter, of_generator, g_optimizer, g_loss, factor, begin=g_begin)]
    if contest.path_length_weight:
        first = preset.pl_start_kimg * 1000 / preset.batch
        phases.append(
            Phase(
                PATH_LENGTH, painter, of_generator, g_optimizer, contest.path_length_loss, CONSTANT,
                due=_every(lazy_length, first), begin=contest.find_path_mean,
            )
        )  # fmt: skip
    phases.append(Phase(DISCRIMINATOR, judge, of_discriminator, d_optimizer, d_loss, factor, begin=begin_discriminator))
    if lazy_penalty and max(preset.gammas) > 0:
        phases.append(
            Phase(
                GRADIENT_PENALTY, judge, of_discriminator, d_optimizer, contest.gradient_penalty, CONSTANT,
                due=_every(lazy_penalty),
            )
        )  # fmt: skip
    return phases


def _every(steps: int, first: float = 0.0) -> Callable[[int], bool]:
    return lambda step: step % steps == 0 and step >= first


def _adam(
    name: str, weights: dict[str, nn.Parameter], rate: float, beta2: Callable[[int], float], every: int
) -> torch.optim.Optimizer:
    rate, betas = lazy_adam(rate, (BETA1, beta2(0)), every)
    return make_optimizer("Adam", [Group(name, rate, weights)], {"betas": betas, "eps": EPSILON}, key="batch")


def _write_options(job: GanJob) -> None:
    """What the run was made with, for people and other programs."""
    folder = Path(job.preset.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    images = job.images
    facts = {
        "data": {
            "path": job.preset.data,
            "images": len(images),
            "resolution": images.resolution,
            "channels": images.channels,
            "label_dim": images.label_dim,
        },
        "seed": job.seed,
        "processes": job.world,
        "images_per_pass": job.preset.images_per_pass(job.world),
        "total_steps": job.total_steps,
        "steps_per_tick": job.preset.steps_per_tick,
    }
    content = {"preset": public_values(job.preset), "run": facts}
    atomic.write_text(folder / OPTIONS, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
