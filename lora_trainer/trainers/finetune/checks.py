"""What a finetune preset's optimizers and files mean to those who read them, before a model is loaded."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_trainer.config.finetune import FIND_LAST, FinetunePreset
from lora_trainer.config.reader import Loaded
from lora_trainer.config.yaml_file import read_yaml
from lora_trainer.engine.optimizers import optimizer_problems
from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.checkpoint import Checkpoint, Prediction
from lora_trainer.models.detect import detect
from lora_trainer.models.newest_model import INDEX, newest_model
from lora_trainer.trainers.finetune.names import FOLDERS
from lora_trainer.trainers.finetune.prompts import PromptFile, Situation, read_prompt_file

MAY_PREDICT_EITHER: Kind = "sd21"


def finetune_problems(loaded: Loaded) -> list[str]:
    """Every wrong optimizer or option of one, each with its place in the file."""
    preset = loaded.preset
    assert isinstance(preset, FinetunePreset)
    asked: list[tuple[str, str, dict[str, object]]] = []
    if preset.trains_unet or preset.train_vae or preset.text_encoder_optimizer_name == preset.optimizer:
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


def base_model(preset: FinetunePreset) -> Checkpoint:
    """The model that is trained on, with what it predicts; a .ckpt says what it is only when it is read. Raises
    Refusal."""
    checkpoint = detect(base_model_path(preset))
    wanted: Any = preset.prediction_type
    if wanted != "auto":
        if checkpoint.prediction not in (None, wanted):
            raise Refusal(
                f"{checkpoint.path}: this model predicts {checkpoint.prediction} ({checkpoint.evidence}), but "
                f'prediction_type is {wanted}; write "auto", or give another model'
            )
        return replace(checkpoint, prediction=wanted)
    if checkpoint.prediction is None:
        checkpoint = replace(checkpoint, prediction=_told_by_yaml(checkpoint.path))
    if checkpoint.prediction is None and checkpoint.kind not in (None, MAY_PREDICT_EITHER):
        checkpoint = replace(checkpoint, prediction="epsilon")
    check_prediction(checkpoint)
    return checkpoint


def check_prediction(checkpoint: Checkpoint) -> None:
    """Raises Refusal for a model of which nothing says what it predicts: a night of training would be for nothing."""
    if checkpoint.kind == MAY_PREDICT_EITHER and checkpoint.prediction is None:
        raise Refusal(
            f"{checkpoint.path}: nothing says whether this Stable Diffusion 2.x model predicts noise or v; set "
            'prediction_type to "v_prediction" for a model of 768 pixels, or to "epsilon" for one of 512'
        )


def _told_by_yaml(model: Path) -> Prediction | None:
    """By the .yaml file that Stable Diffusion 2.x came with, and that EveryDream2 writes, if it lies beside."""
    path = model.with_suffix(".yaml")
    if not path.is_file():
        return None
    content: Any = read_yaml(path)
    for key in ("model", "params"):
        content = content.get(key) if isinstance(content, dict) else None
    if not isinstance(content, dict):
        return None
    return "v_prediction" if content.get("parameterization") == "v" else "epsilon"


def base_model_path(preset: FinetunePreset) -> Path:
    """The model that is trained on; of a run's folder its newest. Raises Refusal where findlast finds none."""
    if preset.finds_last:
        return newest_model(Path(preset.logdir), without=Path(preset.output_dir))
    path = Path(preset.resume_ckpt)
    return newest_model(path) if (path / FOLDERS).is_dir() and not (path / INDEX).is_file() else path


def first_average(preset: FinetunePreset) -> Path | None:
    """The model that the average begins with, where it is another than the trained one. Raises Refusal."""
    if not (preset.averages and preset.ema_resume_model):
        return None
    path = Path(preset.ema_resume_model)
    if preset.ema_resume_model.strip().casefold() == FIND_LAST:
        path = newest_model(Path(preset.logdir), without=Path(preset.output_dir), averaged=True)
    try:
        detect(path)
    except Refusal as refusal:
        raise Refusal(*(f"ema_resume_model: {problem}" for problem in refusal.problems)) from None
    return path


def check_model_folder(preset: FinetunePreset, make: bool = False) -> None:
    """Raises Refusal where save_ckpt_dir can be no folder: the first model may be due in hours. It is made if asked."""
    if not preset.save_ckpt_dir or preset.no_save_ckpt:
        return
    folder = Path(preset.save_ckpt_dir)
    there = next((place for place in (folder, *folder.parents) if place.exists()), Path())
    if not there.is_dir():
        raise Refusal(f"save_ckpt_dir: {folder}: {there} is no folder; name another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Refusal(f"save_ckpt_dir: {folder}: nothing may be written in {there}; name another folder")
    if make:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refusal(f"save_ckpt_dir: {folder}: cannot be made ({error.strerror}); name another folder") from error


def prompt_file(preset: FinetunePreset, seed: int, captions: tuple[str, ...] = ()) -> PromptFile:
    """The previews of ``sample_prompts``; none without it, and none of a VAE. Raises Refusal."""
    if not preset.sample_prompts.strip() or preset.train_vae:
        return PromptFile()
    path = Path(preset.sample_prompts.strip())
    try:
        return read_prompt_file(path, Situation(seed, preset.resolution, captions))
    except Refusal as refusal:
        if path.exists():
            raise
        cure = "put it beside the preset, or remove the key"
        raise Refusal(f"sample_prompts: {path}: there is no such file; {cure}") from refusal
