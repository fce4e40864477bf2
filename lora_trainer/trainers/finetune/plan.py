"""What a dry run tells of a fine-tuning before its trial step."""

from __future__ import annotations

from collections import Counter

from lora_trainer.models.checkpoint import KIND_WORDS
from lora_trainer.trainers.finetune.memory import finetune_memory_rows
from lora_trainer.trainers.finetune.trainer import FinetuneTrainer
from lora_trainer.trainers.finetune.vae import VaeTrainer, plan_vae


def plan_finetune(trainer: FinetuneTrainer | VaeTrainer) -> list[tuple[str, str]]:
    """Rows of a name and a text."""
    if isinstance(trainer, VaeTrainer):
        return plan_vae(trainer)
    job, base = trainer.job, trainer.base
    trained = job.pictures.trained
    shapes = Counter(sample.placement.bucket_px for sample in trained.samples)
    buckets = ", ".join(f"{width} x {height}: {count}" for (height, width), count in sorted(shapes.items()))
    weights = trainer.phases[0].weights
    numbers = {
        name: sum(weight.numel() for path, weight in weights.items() if path.startswith(prefix))
        for name, prefix in (("UNet", "unet."), ("text encoder", "text_encoders."))
    }
    parts = " and ".join(f"{count:,} of the {name}" for name, count in numbers.items() if count)
    rows = [
        ("base model", f"{job.checkpoint.path} ({KIND_WORDS[base.kind]}, predicts {base.prediction})"),
        ("pictures", f"{len(trained.items)} in {job.preset.data_root}"),
        *(("measured", f"{len(pictures.items)} pictures as loss/{name}") for name, pictures in job.pictures.measured),
        ("shapes", buckets),
        ("trained", f"{parts} numbers"),
        *finetune_memory_rows(trainer),
        ("disk", f"{_model_gib(trainer):.2f} GiB for each model that is saved"),
    ]
    return rows


def _model_gib(trainer: FinetuneTrainer) -> float:
    """Of a folder, its single file and the same of the average."""
    base, files = trainer.exported, trainer.files
    models = (base.unet, base.vae, *base.text_encoders)
    numbers = sum(tensor.numel() for model in models for tensor in model.state_dict().values())
    copies = (2 if files.single_files else 1) * (2 if trainer.ema is not None else 1)
    return float(numbers * files.dtype.itemsize * copies / 2**30)
