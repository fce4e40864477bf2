"""What a dry run tells of a GAN's training."""

from __future__ import annotations

from torch import nn

from lora_trainer.engine.phase import leading
from lora_trainer.trainers.gan.trainer import GanTrainer


def plan_gan(trainer: GanTrainer) -> list[tuple[str, str]]:
    """Rows of a name and a text."""
    job, preset, networks = trainer.job, trainer.preset, trainer.networks
    passes = preset.passes(job.world)
    shared = f"{preset.images_per_pass(job.world)} images at a time" + (f", {passes} passes" if passes > 1 else "")
    rows = [
        ("images", job.spoken),
        ("a step", shared),
        ("generator", f"{preset.cfg}, {_numbers(networks.generator)}"),
        ("discriminator", _discriminator(trainer)),
        ("starts from", preset.resume or "nothing"),
        ("phases", ", ".join(phase.name for phase in trainer.phases)),
        ("R1", _spoken(preset.gammas)),
        ("augmentation", _augmentation(trainer)),
        ("a tick", f"{preset.steps_per_tick} steps, a snapshot every {preset.steps_per_snapshot or job.total_steps}"),
        ("metrics", ", ".join(preset.measured) or "none"),
        ("memory", ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in _memory(trainer).items())),
    ]
    return rows


def _numbers(module: nn.Module) -> str:
    return f"{sum(weight.numel() for weight in module.parameters()):,} numbers"


def _discriminator(trainer: GanTrainer) -> str:
    frozen = trainer.preset.freezed
    return _numbers(trainer.networks.discriminator) + (f" trained, and {frozen} frozen layers" if frozen else "")


def _spoken(ends: tuple[float, float]) -> str:
    first, last = ends
    return f"{first:g}" if first == last else f"{first:g} to {last:g}"


def _augmentation(trainer: GanTrainer) -> str:
    preset = trainer.preset
    how = {"ada": f"adaptive, target {preset.target:g}", "fixed": f"fixed at {preset.p:g}", "noaug": "none"}
    return how[preset.aug]


def _memory(trainer: GanTrainer) -> dict[str, int]:
    """What each part holds, before activations: the trial step shows those."""

    def size(module: nn.Module) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())

    trained = sum(weight.numel() for phase in leading(trainer.phases) for weight in phase.weights.values())
    return {
        "generator": size(trainer.networks.generator),
        "average": size(trainer.networks.generator),
        "discriminator": size(trainer.networks.discriminator),
        "gradients": 4 * trained,
        "Adam": 8 * trained,
    }
