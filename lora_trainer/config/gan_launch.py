"""Whether the batch of a GAN's preset can be shared out over the processes that were launched."""

from __future__ import annotations

from collections.abc import Iterator

from lora_trainer.config.gan import GanPreset


def launch_problems(preset: GanPreset, world: int) -> Iterator[tuple[str, str]]:
    """The key and what is wrong with it, for `world` processes. Nothing else of the preset depends on their number."""
    batch, at_a_time = preset.batch, preset.batch_gpu
    if batch % world:
        yield "batch", f"{batch} images cannot be shared out evenly over {world} processes; write {near(batch, world)}"
        return
    if at_a_time and batch % (world * at_a_time):
        share = batch // world
        yield (
            "batch_gpu",
            f"{at_a_time} at a time do not make up the {share} images of each of {_processes(world)}; "
            f"write {_divisors(share, preset)}",
        )
        return
    at_a_time = preset.images_per_pass(world)
    if not preset.recipe.has_minibatch_deviation or at_a_time % preset.mbstd_group == 0:
        return
    cure = f"write batch {near(batch, world * preset.mbstd_group)}, or a mbstd_group that {at_a_time} is a multiple of"
    yield (
        "mbstd_group",
        f"{at_a_time} images, which pass at a time in each of {_processes(world)}, cannot be compared in groups of "
        f"{preset.mbstd_group}; {cure}",
    )


def launch_note(preset: GanPreset, world: int) -> str:
    """What to say where the preset was meant for another number of processes; "" where it was not."""
    if not preset.gpus or preset.gpus == world:
        return ""
    return (
        f"gpus: the preset was made for {preset.gpus}, and {_processes(world)} were launched; the batch of "
        f"{preset.batch} is the total, so the training is the same, {preset.images_per_pass(world)} images at a time "
        f"in each"
    )


def near(number: int, unit: int) -> str:
    """The nearest multiples of a unit, for "write 30 or 33"."""
    below = number // unit * unit
    return f"{below} or {below + unit}" if below else str(unit)


def _divisors(share: int, preset: GanPreset) -> str:
    group = preset.mbstd_group if preset.recipe.has_minibatch_deviation else 1
    found = [number for number in range(group, share + 1, group) if share % number == 0]
    return f"one of {', '.join(map(str, found))}" if found else "another batch"


def _processes(world: int) -> str:
    return "1 process" if world == 1 else f"{world} processes"
