"""The files of previews: a PNG for each prompt that says how it was made, and a sheet of each prompt over time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, PngImagePlugin

from lora_trainer.engine.phase import DrawnPicture
from lora_trainer.trainers.diffusion.sample_prompts import SamplePrompt
from lora_trainer.trainers.diffusion.sampling import Drawing, canonical
from lora_trainer.trainers.preview_sheet import Moment, draw_over_time, write_png

SERIES = "lora_trainer"  # the entry of a PNG that says to which run and prompt it belongs

# our names of samplers -> the names that web UIs show
WEBUI_SAMPLERS = {
    "ddim": "DDIM", "pndm": "PLMS", "lms": "LMS", "euler": "Euler", "euler_a": "Euler a", "heun": "Heun",
    "dpm_2": "DPM2", "dpm_2_a": "DPM2 a", "dpmsolver": "DPM Solver", "dpmsolver++": "DPM++ 2M",
    "dpmsingle": "DPM++ 2S",
}  # fmt: skip


@dataclass(frozen=True)
class Previews:
    """Where the pictures of a run go, and what they are drawn of.

    `run` is what decides about the training, so that pictures which another run left in the folder are told apart.
    """

    folder: Path
    name: str  # output_name
    prompts: Sequence[SamplePrompt]
    model: str  # the base model's name, for the pictures' metadata
    steps_per_epoch: int
    run: Mapping[str, Any]

    def draw(self, drawing: Drawing, label: str, done: int) -> list[DrawnPicture]:
        """Each prompt after `done` steps. The label is `e000002` after an epoch, otherwise the number of steps."""
        pictures = []
        for number, prompt in enumerate(self.prompts):
            path = self.folder / f"{self.name}_{label}_{number:02d}_{prompt.seed}.png"
            text = PngImagePlugin.PngInfo()
            text.add_text("parameters", parameters(prompt, drawing.sampler.name, self.model, done))
            text.add_text(SERIES, self._series(prompt))
            write_png(path, drawing.draw(prompt), pnginfo=text)
            moments = self._moments(number, prompt, done)
            draw_over_time(self.folder / f"{self.name}_{number:02d}_over_time.png", prompt.text, moments)
            pictures.append(DrawnPicture(f"sample/{number:02d}", path, prompt.text))
        return pictures

    def _series(self, prompt: SamplePrompt) -> str:
        content = json.dumps([self.run, prompt.text, prompt.negative], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def _moments(self, number: int, prompt: SamplePrompt, done: int) -> list[Moment]:
        """The pictures of the prompt so far; a later one was left by a run that was broken off."""
        pattern = re.compile(rf"{re.escape(self.name)}_(e?)(\d+)_{number:02d}_{prompt.seed}\.png")
        wanted, moments = self._series(prompt), []
        for file in self.folder.iterdir():
            match = pattern.fullmatch(file.name)
            if match is None:
                continue
            count = int(match.group(2))
            step = count * self.steps_per_epoch if match.group(1) else count
            caption = f"epoch {count}, step {step}" if match.group(1) else f"step {step}"
            if step <= done and _series_of(file) == wanted:
                moments.append(Moment(step, caption, file))
        return moments


def parameters(prompt: SamplePrompt, sampler: str, model: str, done: int) -> str:
    """How the picture was made, in the form that web UIs write and read."""
    name = canonical(prompt.sampler or sampler)
    facts = {
        "Steps": prompt.steps,
        "Sampler": WEBUI_SAMPLERS[name],
        "CFG scale": f"{prompt.guidance:g}",
        "Seed": prompt.seed,
        "Size": f"{prompt.width_px}x{prompt.height_px}",
        "Model": model,
        "Training step": done,
    }
    lines = [prompt.text]
    if prompt.negative:
        lines.append(f"Negative prompt: {prompt.negative}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in facts.items()))
    return "\n".join(lines)


@contextlib.contextmanager
def gathered(device: torch.device, *models: Any) -> Iterator[None]:
    """Within, the models are on the device; afterwards, each is where it was."""
    homes = [(model, model.device) for model in models]
    try:
        for model in models:
            model.to(device)
        yield
    finally:
        for model, home in homes:
            model.to(home)


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:"\n]', text) else text


def _series_of(file: Path) -> str:
    try:
        with Image.open(file) as image:
            return str(image.info.get(SERIES, ""))
    except (OSError, SyntaxError):  # what Pillow raises for a file that is no picture
        return ""
