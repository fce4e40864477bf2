"""What the report of a LoRA training tells of it."""

from __future__ import annotations

from lora_trainer.engine.run_facts import Material, Rows
from lora_trainer.models.checkpoint import KIND_WORDS
from lora_trainer.trainers.lora.job import LoraJob
from lora_trainer.trainers.material import cut, plural, sample_thumbnails, size_counts, tag_counts

TO_WEB_UIS = ("A1111, Forge", "Put {file} into models/Lora and write <lora:{stem}:1> into the prompt.")
TO_COMFYUI = ("ComfyUI", "Put {file} into models/loras and load it with the node Load LoRA.")
TO_DIFFUSERS = ("diffusers", 'pipe.load_lora_weights("the folder", weight_name="{file}")')
MERGED = (
    "diffusers",
    "It does not read this kind. python -m tools.merge_lora {file} --base BASE --output merged.safetensors puts it "
    "into a base model, which everything loads.",
)
LOADS: dict[str, Rows] = {  # by LoRA_type; what is not here loads everywhere
    "LyCORIS/LoHa": (TO_WEB_UIS, TO_COMFYUI, MERGED),
    "LyCORIS/LoKr": (TO_WEB_UIS, TO_COMFYUI, MERGED),
    "LyCORIS/GLoRA": (TO_WEB_UIS, TO_COMFYUI, MERGED),
    "LyCORIS/Native Fine-Tuning": (TO_WEB_UIS, TO_COMFYUI, MERGED),
    "LyCORIS/iA3": (TO_WEB_UIS, MERGED),
    "LyCORIS/BOFT": (TO_COMFYUI, MERGED),
    "LyCORIS/Diag-OFT": (TO_COMFYUI, MERGED),
}


def lora_material(job: LoraJob) -> Material:
    preset, summary = job.preset, job.summary
    base = KIND_WORDS[job.checkpoint.kind] if job.checkpoint.kind else "Stable Diffusion"
    kind = "LoRA" if preset.LoRA_type == "Standard" else preset.LoRA_type
    folders = ", ".join(
        f"{cut(name, 60)}: {plural(count, 'picture')}, {summary.repeats_of[name]} times an epoch"
        for name, count in list(summary.pictures_in.items())[:20]
    )
    rows = [
        ("base model", f"{job.checkpoint.path.name} ({base})"),
        ("pictures", f"{plural(summary.pictures, 'picture')}, {plural(summary.uses, 'use')} an epoch"),
        ("folders", folders),
        ("pictures a step", str(job.total_batch)),
    ]
    if job.held_out:
        rows.append(("held out", f"{plural(len(job.held_out), 'picture')}, for validation alone"))
    if empty := sum(not sample.caption.strip() for sample in job.samples):
        rows.append(("without a caption", plural(empty, "picture")))
    return Material(
        f"{kind} of rank {preset.network_dim} for {base}, trained on {plural(summary.pictures, 'picture')}",
        tuple(rows),
        (
            *size_counts("Buckets, uses an epoch", summary.uses_in),
            *tag_counts([sample.caption for sample in job.samples]),
        ),
        sample_thumbnails(job.samples),
        LOADS.get(preset.LoRA_type, (TO_WEB_UIS, TO_COMFYUI, TO_DIFFUSERS)),
    )
