"""The previews of a fine-tuning: EveryDream2's text file of prompts, or its JSON file with samples and settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lora_trainer.config.kinds import Unfit
from lora_trainer.data.buckets import VAE_STEP_PX, place
from lora_trainer.data.everydream.placing import bucket_settings
from lora_trainer.draws import python_random
from lora_trainer.errors import Refusal, did_you_mean
from lora_trainer.trainers.diffusion.sample_prompts import LARGEST_SIDE_PX, MOST_STEPS, SAMPLERS, SamplePrompt

CFGS, STEPS, SAMPLER = (7.0, 4.0, 1.01), 30, "ddim"
OTHER_NAMES = {"dpm++": "dpmsolver++", "dpm": "dpmsolver", "euler_ancestral": "euler_a", "dpm_2_ancestral": "dpm_2_a"}
WITHOUT_EFFECT = {
    "batch_size": "previews are drawn one by one",
    "show_progress_bars": "the console shows them",
}
OF_A_SAMPLE = ("prompt", "negative_prompt", "seed", "size", "aspect_ratio", "random_caption")


@dataclass(frozen=True)
class PromptFile:
    """What is drawn, and when, where the file says so; notes are for the person.

    ``every_n_steps`` comes before the preset's ``sample_steps``.
    """

    prompts: tuple[SamplePrompt, ...] = ()
    before_training: bool = False
    every_n_steps: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Situation:
    """What samples have that say nothing themselves: the run's seed and resolution, and its pictures' captions."""

    seed: int
    resolution: int
    captions: Sequence[str] = ()


@dataclass
class _Settings:
    """The root of a JSON file."""

    seed: int
    resolution: int
    cfgs: Sequence[float] = CFGS
    scheduler: str = SAMPLER
    num_inference_steps: int = STEPS
    generate_pretrain_samples: bool = False
    generate_samples_every_n_steps: int | None = None
    samples: Sequence[Any] = field(default_factory=tuple)


def read_prompt_file(path: Path, situation: Situation) -> PromptFile:
    """The previews of a .txt or .json file. Each sample is drawn with every guidance of ``cfgs``.

    In a text file each line is a prompt; without one, captions of the pictures take their place. Refusal with all that
    is wrong.
    """
    text = _content(path)
    if path.suffix.lower() == ".json":
        return _from_json(path, text, situation)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    samples: list[dict[str, Any]] = [{"prompt": line} for line in lines]
    settings = _Settings(situation.seed, situation.resolution, samples=samples or [{"random_caption": True}])
    return _prompts(path, settings, situation, [])


def _content(path: Path) -> str:
    if path.suffix.lower() not in (".txt", ".json"):
        raise Refusal(f"sample_prompts: {path}: write the path of a .txt or .json file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Refusal(f"sample_prompts: {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Refusal(f"sample_prompts: {path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _from_json(path: Path, text: str, situation: Situation) -> PromptFile:
    try:
        root = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"sample_prompts: {path}:{error.lineno}:{error.colno}"
        raise Refusal(f"{place}: is not JSON ({error.msg})") from error
    if not isinstance(root, dict):
        raise Refusal(f'sample_prompts: {path}: must hold an object: {{"samples": [{{"prompt": "a cat"}}]}}')
    settings, problems, notes = _Settings(situation.seed, situation.resolution), [], []
    for key, value in root.items():
        if key in WITHOUT_EFFECT:
            notes.append(f"{path}: {key}: without effect: {WITHOUT_EFFECT[key]}")
        elif key not in ROOT:
            problems.append(f"{key}: unknown key{did_you_mean(key, [*ROOT, *WITHOUT_EFFECT])}")
        elif value is not None:
            try:
                setattr(settings, key, ROOT[key](value))
            except (TypeError, ValueError, OverflowError) as error:
                problems.append(f"{key} {value!r}: {_reason(error)}")
    if settings.seed < 0:
        settings.seed = situation.seed
    if problems:
        raise Refusal(*(f"sample_prompts: {path}: {problem}" for problem in problems))
    return _prompts(path, settings, situation, notes)


def _prompts(path: Path, settings: _Settings, situation: Situation, notes: list[str]) -> PromptFile:
    prompts: list[SamplePrompt] = []
    problems: list[str] = []
    for number, sample in enumerate(settings.samples, 1):
        try:
            prompt = _sample(sample, number, settings, situation)
        except (TypeError, ValueError, OverflowError) as error:
            problems.append(f"sample_prompts: {path}: sample {number}: {_reason(error)}")
            continue
        prompts += [replace(prompt, guidance=cfg) for cfg in settings.cfgs]
    if problems:
        raise Refusal(*problems)
    every = settings.generate_samples_every_n_steps
    return PromptFile(tuple(prompts), settings.generate_pretrain_samples, every, tuple(notes))


def _sample(sample: Any, number: int, settings: _Settings, situation: Situation) -> SamplePrompt:
    """Raises Unfit. A sample without a seed of its own has the run's, and with -1 one that follows from its number."""
    if not isinstance(sample, dict):
        raise Unfit('write an object: {"prompt": "a cat"}')
    for key in sample:
        if key not in OF_A_SAMPLE:
            raise Unfit(f"{key}: unknown key{did_you_mean(key, OF_A_SAMPLE)}; the keys are {', '.join(OF_A_SAMPLE)}")
    given = {key: value for key, value in sample.items() if value is not None}
    text = str(given.get("prompt", ""))
    if given.get("random_caption") and situation.captions:
        text = python_random(situation.seed, number, "random caption").choice(situation.captions)
    seed = _whole(given.get("seed", settings.seed))
    if seed < 0:
        seed = situation.seed + number
    width_px, height_px = _size(given, settings.resolution)
    negative = str(given.get("negative_prompt", ""))
    steps, sampler = settings.num_inference_steps, settings.scheduler
    return SamplePrompt(text, negative, width_px, height_px, seed, steps, settings.cfgs[0], sampler)


def _size(given: Mapping[str, Any], resolution: int) -> tuple[int, int]:
    """Width and height in pixels."""
    if "size" in given:
        width, height = (_side(side) for side in given["size"])
        return width, height
    aspect = float(given.get("aspect_ratio", 1.0))
    if not 0.1 <= aspect <= 10:
        raise Unfit("aspect_ratio is width / height, from 0.1 to 10")
    bucket_height, bucket_width = place(1000, round(1000 * aspect), bucket_settings(resolution)).bucket_px
    return bucket_width, bucket_height


def _side(value: Any) -> int:
    side = _whole(value) // VAE_STEP_PX * VAE_STEP_PX
    if not 64 <= side <= LARGEST_SIDE_PX:
        raise Unfit(f"a side has from 64 to {LARGEST_SIDE_PX} pixels")
    return side


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value):
        raise Unfit("write a whole number")
    return int(value)


def _count(value: Any) -> int:
    if not 0 <= _whole(value) <= 10**9:
        raise Unfit("write a whole number from 0 upwards")
    return _whole(value)


def _steps(value: Any) -> int:
    if not 1 <= _whole(value) <= MOST_STEPS:
        raise Unfit(f"write a whole number from 1 to {MOST_STEPS}")
    return _whole(value)


def _resolution(value: Any) -> int:
    side = _whole(value) // 64 * 64
    if not 64 <= side <= 2048:
        raise Unfit("write a whole number from 64 to 2048")
    return side


def _cfgs(value: Any) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in (value if isinstance(value, list) else [value]))
    if not numbers or not all(0 <= number <= 1000 for number in numbers):
        raise Unfit("write a list of numbers from 0 to 1000")
    return numbers


def _sampler(value: Any) -> str:
    name = str(value).strip().casefold()
    name = OTHER_NAMES.get(name, name)
    if name not in SAMPLERS:
        raise Unfit(f"unknown sampler{did_you_mean(name, SAMPLERS)}; the samplers are {', '.join(SAMPLERS)}")
    return name


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit("write true or false")
    return value


def _samples(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unfit("write a list of samples")
    return value


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Unfit) else "not a number"


ROOT: Mapping[str, Callable[[Any], Any]] = {
    "seed": _whole,
    "resolution": _resolution,
    "cfgs": _cfgs,
    "scheduler": _sampler,
    "num_inference_steps": _steps,
    "generate_pretrain_samples": _switch,
    "generate_samples_every_n_steps": _count,
    "samples": _samples,
}
