"""Whether the batch of a GAN's preset can be shared out over the processes that were launched."""

from __future__ import annotations

from collections.abc import Iterator

from lora_trainer.config.gan import GanPreset


def launch_problems(preset: GanPreset, world: int) -> Iterator[tuple[str, str]]:
    """The key and what is wrong with it, for `world` processes. Nothing else of the preset depends on their number."""
    batch = preset.batch
    if batch % world:
        yield "batch", f"{batch} images cannot be shared out evenly over {world} processes; write {near(batch, world)}"
        return
    share, at_a_time = batch // world, preset.images_per_pass(world)
    if share % at_a_time:
        text = f"{at_a_time} at a time do not make up the {share} images of {_each(world)}"
        yield "batch_gpu", f"{text}; write {_divisors(share, preset)}"
    elif preset.recipe.has_minibatch_deviation and at_a_time % preset.mbstd_group:
        some = at_a_time < share
        cure = _divisors(share, preset) if some else near(batch, world * preset.mbstd_group)
        yield (
            "batch_gpu" if some else "batch",
            f"{at_a_time} images, which pass at a time in {_each(world)}, cannot be compared in groups of "
            f"{preset.mbstd_group} (mbstd_group); write {cure}, or a mbstd_group that {at_a_time} is a multiple of",
        )


def launch_note(preset: GanPreset, world: int) -> str:
    """What to say where the preset was meant for another number of processes; "" where it was not."""
    if not preset.gpus or preset.gpus == world:
        return ""
    return (
        f"gpus: the preset was made for {preset.gpus}, and {_launched(world)}; the batch of "
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


def _each(world: int) -> str:
    return "the one process" if world == 1 else f"each of {world} processes"


def _launched(world: int) -> str:
    return "1 process was launched" if world == 1 else f"{world} processes were launched"
