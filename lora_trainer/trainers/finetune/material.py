"""What the report of a fine-tuning tells of it."""

from __future__ import annotations

from collections import Counter

from lora_trainer.engine.run_facts import Material, Rows
from lora_trainer.models.checkpoint import KIND_WORDS
from lora_trainer.trainers.finetune.job import FinetuneJob
from lora_trainer.trainers.material import plural, sample_thumbnails, size_counts, tag_counts

FILE: Rows = (
    ("A1111, Forge", "Put {file} into models/Stable-diffusion and choose it above the prompt."),
    ("ComfyUI", "Put {file} into models/checkpoints and load it with the node Load Checkpoint."),
    ("diffusers", 'DiffusionPipeline.from_pretrained("ckpts/{stem}") reads the folder of that name beside this page.'),
)
FOLDER: Rows = (("diffusers", 'DiffusionPipeline.from_pretrained("ckpts/{file}") reads the folder of that name.'),)
DESCRIBED = (  # a model of unusual size is known by its folder alone
    "A1111, ComfyUI",
    "They know the published sizes alone; a model that was described in a file loads where its sizes are those.",
)


def finetune_material(job: FinetuneJob) -> Material:
    preset, trained = job.preset, job.pictures.trained
    base = KIND_WORDS[job.checkpoint.kind] if job.checkpoint.kind else "Stable Diffusion"
    what = "The VAE" if preset.train_vae else "Fine-tuning"
    described = job.checkpoint.layout == "description"
    rows = [
        ("base model", f"{job.checkpoint.path.name} ({base}{', from random weights' if described else ''})"),
        ("pictures", plural(len(trained.items), "picture")),
        ("pictures a step", str(job.total_batch)),
        *((f"measured as {name}", plural(len(found.items), "picture")) for name, found in job.pictures.measured),
    ]
    how = FOLDER if preset.no_save_ckpt else FILE
    return Material(
        f"{what} of {base}, trained on {plural(len(trained.items), 'picture')}",
        tuple(rows),
        (
            *size_counts("Sizes, pictures", Counter(sample.placement.bucket_px for sample in trained.samples)),
            *tag_counts(job.captions),
        ),
        sample_thumbnails(trained.samples),
        (*how[-1:], DESCRIBED) if described else how,
    )
