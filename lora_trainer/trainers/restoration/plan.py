"""What a dry run tells of a restoration training."""

from __future__ import annotations

from torch import nn

from lora_trainer.config.restoration_loss import Stage
from lora_trainer.config.restoration_model import STAND_IN
from lora_trainer.data.degradation import describe, plan_degradation
from lora_trainer.trainers.restoration.checks import degradation_settings
from lora_trainer.trainers.restoration.trainer import RestorationTrainer

FILES = 2  # of each LoRA: .pth and .safetensors


def plan_restoration(trainer: RestorationTrainer) -> list[tuple[str, str]]:
    """Rows of a name and a text."""
    job, preset = trainer.job, trainer.job.preset
    numbers = sum(weight.numel() for weight in trainer.phases[0].weights.values())
    layers = len(trainer.phases[0].weights) // 2
    rows = [
        ("base model", str(job.checkpoint.path) if job.checkpoint else STAND_IN),
        ("LoRA", f"rank {preset.lora_rank} in {layers} layers, {numbers:,} numbers"),
        ("starts from", preset.weight_path or "nothing"),
        ("timesteps", f"model_t {preset.model_t}, coeff_t {preset.coeff_t}"),
    ]
    if len(trainer.phases) > 1:
        judge = sum(weight.numel() for weight in trainer.phases[1].weights.values())
        where = job.backbone or STAND_IN
        rows.append(("discriminator", f"{where}, {judge:,} numbers in its heads" + _r1(trainer)))
    rows += [
        ("pictures", job.spoken),
        ("degraded", _degraded(trainer)),
        ("losses", "; ".join(_spoken(stage) for stage in preset.loss_stages)),
        ("held out", _held_out(trainer)),
        ("a folder", _folder_size(trainer, numbers)),
        ("memory", ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in memory_bytes(trainer).items())),
    ]
    return rows


def memory_bytes(trainer: RestorationTrainer) -> dict[str, int]:
    """What each part holds, before activations: the trial step shows those."""
    networks, objective = trainer.painter.networks, trainer.gradients.objective
    sizes = {"UNet and LoRA": _bytes(networks.unet), "VAE": _bytes(networks.vae)}
    if objective.lpips is not None:
        sizes["LPIPS"] = _bytes(objective.lpips)
    if objective.judge is not None:
        sizes["discriminator"] = _bytes(objective.judge.backbone) + _bytes(objective.judge.heads)
    trained = sum(weight.numel() for phase in trainer.phases for weight in phase.weights.values())
    if trainer.ema is not None:
        sizes["average"] = 4 * sum(weight.numel() for weight in trainer.phases[0].weights.values())
    sizes["gradients"] = 4 * trained
    sizes["optimizers, when they keep two moments"] = 8 * trained
    return sizes


def _r1(trainer: RestorationTrainer) -> str:
    preset = trainer.job.preset
    return f", R1 {preset.r1_gamma:g} every {preset.r1_interval} steps" if preset.penalises_gradients else ""


def _degraded(trainer: RestorationTrainer) -> str:
    preset = trainer.job.preset
    if trainer.job.pairs.paired:
        counts = {kind: trainer.job.pairs.kinds.count(kind) for kind in dict.fromkeys(trainer.job.pairs.kinds)}
        kinds = ", ".join(f"{kind} {count}" for kind, count in counts.items() if kind)
        return f"paired pictures{': ' if kinds else ''}{kinds}"
    size = (preset.out_size, preset.out_size)
    plan = plan_degradation(degradation_settings(preset), preset.stage2_scale, size, 1)
    return f"anew for every square, for example: {describe(plan)}"


def _spoken(stage: Stage) -> str:
    weights = {name: weight for name, weight in vars(stage.lambdas).items() if weight}
    moment = f"from step {stage.step} on " if stage.step else ""
    return moment + ", ".join(f"{name} {weight:g}" for name, weight in weights.items())


def _held_out(trainer: RestorationTrainer) -> str:
    job = trainer.job
    if job.held_out is None:
        return "nothing: there is no val_dir"
    count = len(job.held_out.first_of_each_kind(job.preset.num_samples_per_type))
    every = job.preset.validation_steps
    return f"{count} pairs, measured before the first step, {f'every {every} steps ' if every else ''}and at the end"


def _folder_size(trainer: RestorationTrainer, numbers: int) -> str:
    versions = 2 if trainer.ema is not None else 1
    return f"of the LoRA holds {FILES * versions} files, {4 * numbers * FILES * versions / 2**30:.2f} GiB in all"


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
