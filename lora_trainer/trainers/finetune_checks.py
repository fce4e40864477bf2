"""What a finetune preset's optimizers and files mean to those who read them, before a model is loaded."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.config.reader import Loaded
from lora_trainer.engine.optimizers import optimizer_problems
from lora_trainer.errors import Refusal
from lora_trainer.models.newest_model import newest_model
from lora_trainer.trainers.finetune_prompts import PromptFile, Situation, read_prompt_file

FIND_LAST = "findlast"


def finetune_problems(loaded: Loaded) -> list[str]:
    """Every wrong optimizer or option of one, each with its place in the file."""
    preset = loaded.preset
    assert isinstance(preset, FinetunePreset)
    asked: list[tuple[str, str, dict[str, object]]] = []
    if preset.trains_unet or preset.text_encoder_optimizer_name == preset.optimizer:
        asked.append(("", preset.optimizer, preset.optimizer_options))
    if preset.trains_text_encoder:
        asked.append(("text_encoder_", preset.text_encoder_optimizer_name, preset.text_encoder_optimizer_options))
    found: list[str] = []
    for prefix, name, options in asked:
        for problem in optimizer_problems(name, options):
            suffix = "optimizer_args" if "does not accept" in problem else "optimizer"
            key = f"{prefix}{suffix}" if f"{prefix}{suffix}" in loaded.entries else suffix
            sentence = loaded.wrong(problem, key)
            found += [sentence] if sentence not in found else []
    return found


def base_model_path(preset: FinetunePreset) -> Path:
    """The model that is trained on. Raises Refusal where findlast finds none."""
    if preset.resume_ckpt.strip().casefold() == FIND_LAST:
        return newest_model(Path(preset.logdir), without=Path(preset.output_dir))
    return Path(preset.resume_ckpt)


def prompt_file(preset: FinetunePreset, seed: int, captions: tuple[str, ...] = ()) -> PromptFile:
    """The previews of ``sample_prompts``; none without it. Raises Refusal."""
    if not preset.sample_prompts.strip():
        return PromptFile()
    path = Path(preset.sample_prompts.strip())
    try:
        return read_prompt_file(path, Situation(seed, preset.resolution, captions))
    except Refusal as refusal:
        if path.exists():
            raise
        cure = "put it beside the preset, or remove the key"
        raise Refusal(f"sample_prompts: {path}: there is no such file; {cure}") from refusal
