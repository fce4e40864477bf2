"""The super-resolution trainer: a generator, with a discriminator where the losses ask for one, and their average."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer import atomic
from lora_trainer.config.kinds import Component
from lora_trainer.config.super_resolution import SuperResolutionPreset
from lora_trainer.data.degradation import degrade, plan_degradation
from lora_trainer.data.mixing import mix
from lora_trainer.data.pair_crops import PairCrops
from lora_trainer.data.resize import downscale_lq
from lora_trainer.draws import draw_key, uniform
from lora_trainer.engine.ema import Ema
from lora_trainer.engine.optimizers import Group, make_optimizer
from lora_trainer.engine.phase import Batch, DrawnPicture, Phase, Stateful
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.engine.schedules import Schedule, torch_schedule
from lora_trainer.models.discriminators.table import build_discriminator
from lora_trainer.models.safetensors_bytes import safetensors_bytes
from lora_trainer.models.sr_file import check_readback, foresee_readback, save_network
from lora_trainer.models.sr_fusing import fuse_threefold
from lora_trainer.models.sr_networks import SrNetwork, build_network
from lora_trainer.models.sr_pretrain import load_pretrain
from lora_trainer.trainers.job import FollowsJob
from lora_trainer.trainers.super_resolution.checks import degradation_settings
from lora_trainer.trainers.super_resolution.job import SuperResolutionJob
from lora_trainer.trainers.super_resolution.objective import AdaptiveAdversary, Gan, Objective, build_losses
from lora_trainer.trainers.super_resolution.validation import SHEET, SHOTS, Validator, averaged, evaluating

log = logging.getLogger(__name__)

DTYPES = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class SuperResolutionTrainer(FollowsJob):
    """What the loop runs (engine.phase.Trainer)."""

    job: SuperResolutionJob
    network: SrNetwork
    phases: Sequence[Phase]
    data: PairCrops
    inputs: Inputs
    ema: Ema | None
    validator: Validator | None
    state: Mapping[str, Stateful] = field(default_factory=dict)
    largest_step: int = 0  # all batches are alike

    @property
    def preset(self) -> SuperResolutionPreset:
        return self.job.preset

    @property
    def suffix(self) -> str:
        return f".{self.preset.save_checkpoint_format}"

    def prepare(self, step: int, micros: list[Batch]) -> list[Batch]:
        """Pictures from 0 to 1, and the low resolution where it is made here."""
        # networks with stochastic depth draw from the global generator
        torch.manual_seed(draw_key(self.job.seed, step, self.data.share.rank, "network") & 0x7FFF_FFFF_FFFF_FFFF)
        prepared = [self.inputs.make(step, micro) for micro in micros]
        if self.inputs.wants_average and self.ema is not None:
            with self.ema.swapped(), torch.no_grad(), self.inputs.precision.autocast():
                for micro in prepared:
                    micro["ema_output"] = self.network.module(micro["lq"]).float()
        return prepared

    def after_step(self, step: int) -> None:
        if self.ema is not None:
            self.ema.update(step)

    def export(self, stem: Path, done: int) -> Path:
        """The averaged generator, read back at once by the loader that others will use."""
        path = stem.with_name(stem.name + self.suffix)
        dtype = DTYPES[self.preset.save_precision]
        with averaged(self.ema), evaluating(self.network.module):
            save_network(path, self.network, self.network.module.state_dict(), dtype)
            for difference in check_readback(path, self.network):
                log.warning("%s: %s", path.name, difference)
        if done == self.total_steps and len(self.phases) > 1:
            self._export_discriminator(stem.with_name(f"{stem.name}_net_d.safetensors"))
        return path

    def preview(self, folder: Path, label: str, done: int) -> Sequence[DrawnPicture]:
        """Nothing is drawn anew: the sheet of a validation after the same step."""
        sheet = folder / SHEET
        return (DrawnPicture("validation/over_time", sheet),) if any(folder.glob(f"{SHOTS}/*_{done:08d}.png")) else ()

    def validate(self, folder: Path, label: str, done: int) -> Mapping[str, float]:
        if self.validator is None:
            return {}
        with averaged(self.ema), evaluating(self.network.module):
            return self.validator.measure(self.network, folder, done)

    def _export_discriminator(self, path: Path) -> None:
        weights = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.phases[1].module.state_dict().items()
        }
        atomic.write_bytes(path, safetensors_bytes(weights, {"type": self.preset.network_d.type}))


@dataclass(frozen=True)
class Inputs:
    """How a micro-batch of stored pixels becomes what the networks see."""

    preset: SuperResolutionPreset
    seed: int
    precision: Precision
    memory_format: torch.memory_format
    wants_average: bool = False

    def make(self, step: int, micro: Batch) -> Batch:
        preset = self.preset
        gt = micro["gt"].float() / 255
        stored = micro["lq"].float() / 255 if "lq" in micro else None
        if preset.high_order_degradation:
            lq = self._degraded(gt, stored, micro["keys"])
        elif stored is not None:
            lq = stored
        else:
            lq = downscale_lq(gt, preset.scale, preset.lq_resize_mode)
        if preset.use_moa:
            key = draw_key(self.seed, step, "mixture of augmentations")
            gt, lq = mix(gt, lq, preset.scale, key, preset.moa_augs, preset.moa_probs)
        lq = lq.contiguous(memory_format=self.memory_format)
        return {**micro, "gt": gt.contiguous(memory_format=self.memory_format), "lq": lq}

    def _degraded(self, gt: Tensor, stored: Tensor | None, keys: Sequence[int]) -> Tensor:
        settings = degradation_settings(self.preset)
        size = (int(gt.shape[-2]), int(gt.shape[-1]))
        plans = [plan_degradation(settings, self.preset.scale, size, key) for key in keys]
        made = degrade(gt, plans)
        if stored is None or not self.preset.dataroot_lq_prob:
            return made
        paired = [uniform(key, "paired") < self.preset.dataroot_lq_prob for key in keys]
        return torch.where(torch.tensor(paired).to(gt.device, non_blocking=True)[:, None, None, None], stored, made)


def build_super_resolution(
    job: SuperResolutionJob, processes: Processes, precision: Precision, dry: bool = False
) -> SuperResolutionTrainer:
    """Make the networks, load what they start from, and their losses, optimizers and average."""
    preset, device = job.preset, processes.device
    _set_up_torch(preset, device)
    memory_format = _memory_format(preset, precision, device)
    network = _generator(job, device, memory_format)
    objective = _objective(job, processes, memory_format)
    trained = network.trained_weights()
    for name, weight in network.module.named_parameters():
        weight.requires_grad_(name in trained)
    ema = None
    if preset.ema_decay:
        ema = Ema(
            network.module, preset.ema_decay, power=preset.ema_power, update_after=preset.ema_update_after_step,
            switch_every=preset.ema_switch_iter, only=trained,
        )  # fmt: skip
    phases = _phases(job, network, trained, objective)
    if preset.use_compile:
        network.module.compile(mode=preset.compile_mode)
    state: dict[str, Stateful] = {}
    if ema is not None:
        state["ema"] = ema
    if objective.adversary is not None:
        state["adversary"] = objective.adversary
    inputs = Inputs(preset, job.seed, precision, memory_format, "ema_output" in objective.needs)
    validator = Validator.build(job, device, precision) if job.validation.cadence.enabled and not dry else None
    for note in job.pairs.notes:
        log.info("note: %s", note)
    log.info("%s", job.spoken)
    return SuperResolutionTrainer(job, network, phases, job.data(processes.rank), inputs, ema, validator, state)


def _generator(job: SuperResolutionJob, device: torch.device, memory_format: torch.memory_format) -> SrNetwork:
    preset = job.preset
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_key(job.seed, "generator") & 0x7FFF_FFFF_FFFF_FFFF)
        network = build_network(preset.network_g.type, preset.scale, preset.network_g.options)
    for note in (*network.notes, *foresee_readback(network)):
        log.info("note: %s", note)
    if preset.pretrain_network_g:
        path = Path(preset.pretrain_network_g)
        report = load_pretrain(network.module, path, strict=preset.strict_load_g, param_key=preset.param_key_g)
        for line in report.lines:
            log.info("%s", line)
    fuse_threefold(network.module)
    _placed(network.module, device, memory_format)
    return network


def _objective(job: SuperResolutionJob, processes: Processes, memory_format: torch.memory_format) -> Objective:
    preset, device = job.preset, processes.device
    losses = build_losses(preset.pixel_losses, device)
    if preset.gan_loss is None:
        return Objective(losses)
    options = preset.gan_loss.options
    discriminator = build_discriminator(
        preset.network_d.type, preset.network_d.options, seed=draw_key(job.seed, "discriminator")
    )
    if preset.pretrain_network_d:
        path = Path(preset.pretrain_network_d)
        report = load_pretrain(discriminator, path, strict=preset.strict_load_d, param_key=preset.param_key_d)
        for line in report.lines:
            log.info("%s", line)
    _placed(discriminator, device, memory_format)
    gan = Gan(
        discriminator,
        str(options.get("gan_type", "vanilla")),
        float(options.get("loss_weight", 1.0)),  # type: ignore[arg-type]
        float(options.get("real_label_val", 1.0)),  # type: ignore[arg-type]
        float(options.get("fake_label_val", 0.0)),  # type: ignore[arg-type]
    )
    adversary = None
    if preset.adaptive_d:
        adversary = AdaptiveAdversary(preset.adaptive_d_ema_decay, preset.adaptive_d_threshold, processes.sum_)
    return Objective(losses, gan, adversary)


def _phases(
    job: SuperResolutionJob, network: SrNetwork, trained: Mapping[str, nn.Parameter], objective: Objective
) -> list[Phase]:
    preset = job.preset
    norm = preset.grad_clip_max_norm if preset.grad_clip else 0.0
    rate, optimizer = _optimizer("optim_g", preset.optim_g, trained)
    first = preset.net_d_init_iters if objective.gan is not None else 0
    every = preset.net_d_iters if objective.gan is not None else 1

    def generator_is_due(step: int) -> bool:
        return step >= first and (step + 1) % every == 0

    phases = [
        Phase(
            "g", network.module, trained, optimizer, objective.generator_loss, _schedule(job, rate), norm,
            generator_is_due,
        )
    ]  # fmt: skip
    if objective.gan is None:
        return phases
    judge, adversary = objective.gan.discriminator, objective.adversary
    weights = dict(judge.named_parameters())
    rate, optimizer = _optimizer("optim_d", preset.optim_d, weights)

    def discriminator_is_due(step: int) -> bool:
        return adversary is None or not generator_is_due(step) or adversary.works()

    def loss(module: nn.Module, batch: Batch) -> Any:
        if "output" not in batch:  # the generator rested in this step
            with torch.no_grad():
                batch["output"] = network.module(batch["lq"])
        return objective.discriminator_loss(module, batch)

    phases.append(Phase("d", judge, weights, optimizer, loss, _schedule(job, rate), norm, discriminator_is_due))
    return phases


def _optimizer(key: str, part: Component, weights: Mapping[str, nn.Parameter]) -> tuple[float, torch.optim.Optimizer]:
    options = {name: value for name, value in part.options.items() if name != "lr"}
    rate = float(part.options.get("lr", 1e-4))  # type: ignore[arg-type]
    return rate, make_optimizer(part.type, [Group(key.removeprefix("optim_"), rate, weights)], options, key=key)


def _schedule(job: SuperResolutionJob, rate: float) -> Schedule:
    preset = job.preset
    return torch_schedule(
        preset.scheduler.type, preset.scheduler.options, rate, job.total_steps, warmup_steps=max(0, preset.warmup_iter)
    )


def _set_up_torch(preset: SuperResolutionPreset, device: torch.device) -> None:
    torch.set_float32_matmul_precision("high" if preset.fast_matmul else "highest")
    torch.autograd.set_detect_anomaly(preset.detect_anomaly)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not preset.deterministic  # crops have one size
        torch.backends.cudnn.deterministic = preset.deterministic


def _placed(module: nn.Module, device: torch.device, memory_format: torch.memory_format) -> None:
    module.to(device).train()
    module.to(memory_format=memory_format)  # type: ignore[call-overload]


def _memory_format(preset: SuperResolutionPreset, precision: Precision, device: torch.device) -> torch.memory_format:
    fits = device.type == "cpu" or precision.dtype != torch.float32  # float32 convolutions of a GPU are slower with it
    wanted = preset.use_channels_last and fits
    return torch.channels_last if wanted else torch.contiguous_format
