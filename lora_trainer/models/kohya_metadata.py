"""The metadata of a LoRA file: what A1111 and its like show on the card, and how a person finds out what was trained.

All values are text, an absent one is "None", a list is "(width, height)" or JSON, as in the files of sd-scripts.
Only what the tables here name is written, and of a path only the last part: no key, no folder of a person gets out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from torch import Tensor

from lora_trainer import __version__
from lora_trainer.models.base_configs import Kind
from lora_trainer.models.safetensors_bytes import safetensors_bytes

# Written as ss_<name> with the value of the setting of that name.
SETTING_NAMES = """
    adaptive_noise_scale bucket_no_upscale cache_latents caption_dropout_every_n_epochs caption_dropout_rate
    caption_tag_dropout_rate clip_skip color_aug enable_bucket face_crop_aug_range flip_aug fp8_base fp8_base_unet
    full_fp16 gradient_accumulation_steps gradient_checkpointing huber_c huber_scale huber_schedule ip_noise_gamma
    ip_noise_gamma_random_strength keep_tokens learning_rate loss_type lowram lr_scheduler lr_warmup_steps
    max_bucket_reso max_grad_norm max_token_length max_train_steps max_validation_steps min_bucket_reso min_snr_gamma
    mixed_precision multires_noise_discount multires_noise_iterations network_alpha network_dim network_dropout
    noise_offset noise_offset_random_strength optimizer output_name prior_loss_weight random_crop
    resize_interpolation scale_weight_norms seed shuffle_caption text_encoder_lr training_comment unet_lr
    validate_every_n_epochs validate_every_n_steps validation_seed validation_split zero_terminal_snr
"""

RENAMED_SETTINGS = {
    "ss_batch_size_per_device": "train_batch_size",
    "ss_debiased_estimation": "debiased_estimation_loss",
}

# Left out when the setting is absent.
MODELSPEC_SETTINGS = {
    "modelspec.author": "metadata_author",
    "modelspec.description": "metadata_description",
    "modelspec.license": "metadata_license",
    "modelspec.tags": "metadata_tags",
    "modelspec.encoder_layer": "clip_skip",
}

# Kept when the rest is not wanted, as by sd-scripts.
LEAST = (
    "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args",
)  # fmt: skip

# By (kind, whether it predicts v): ss_base_model_version, modelspec.architecture
BASE_NAMES: dict[tuple[Kind, bool], tuple[str, str]] = {
    ("sd15", False): ("sd_v1", "stable-diffusion-v1"),
    ("sd15", True): ("sd_v1", "stable-diffusion-v1"),
    ("sd21", False): ("sd_v2", "stable-diffusion-v2-512"),
    ("sd21", True): ("sd_v2_v", "stable-diffusion-v2-768-v"),
    ("sdxl", False): ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
    ("sdxl", True): ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
}

# In whose layout the file names the UNet's layers.
IMPLEMENTATIONS: dict[Kind, str] = {
    "sd15": "diffusers",
    "sd21": "diffusers",
    "sdxl": "https://github.com/Stability-AI/generative-models",
}

# The bytes that the short hashes are of; a smaller file has none there, and every such file hashes to e3b0c442.
WINDOW_START, WINDOW_END = 0x100000, 0x110000


@dataclass(frozen=True)
class ModelHashes:
    """How A1111 and civitai recognise a checkpoint file."""

    short: str  # 8 hex digits of the SHA-256 of 64 KiB at 1 MiB: A1111's first, weak hash
    full: str  # SHA-256 of the whole file


@dataclass(frozen=True)
class BaseFacts:
    """What was trained on. Of the paths only the last part is written."""

    kind: Kind
    v_prediction: bool
    checkpoint: Path
    hashes: ModelHashes | None = None  # a folder has none
    vae: Path | None = None
    vae_hashes: ModelHashes | None = None


@dataclass(frozen=True)
class FolderFacts:
    """One folder of the training set."""

    repeats: int
    images: int
    tags: Mapping[str, int] = field(default_factory=dict)  # how many captions have the tag


@dataclass(frozen=True)
class DataFacts:
    """The training set. Folders go by their name, buckets by (height, width) with images times repeats."""

    resolution_px: tuple[int, int]  # height, width
    folders: Mapping[str, FolderFacts]
    buckets: Mapping[tuple[int, int], int]
    regularisation_folders: Mapping[str, FolderFacts] = field(default_factory=dict)
    mean_bucket_error: float = 0.0  # of the aspect ratio
    validation_images: int = 0
    described: str = ""  # the data sets of a dataset_config, as JSON


@dataclass(frozen=True)
class ProgressFacts:
    """How far the run was when the file was written, and how long it is."""

    epoch: int
    step: int
    epochs: int
    batches_per_epoch: int
    total_batch_size: int


@dataclass(frozen=True)
class ClockFacts:
    """What differs from one run to the next even when the weights do not: seconds since 1970, and a random number."""

    started_at: float
    finished_at: float
    session_id: int


def lora_metadata(
    base: BaseFacts,
    data: DataFacts,
    progress: ProgressFacts,
    settings: Mapping[str, Any],
    clock: ClockFacts | None = None,
) -> dict[str, str]:
    """All of a file's metadata except its hashes (`with_hashes`).

    `settings` are the training settings under kohya's names; those that no table here names are not written, those
    that are missing count as None. `network_args` is a mapping. Without a clock the same training gives the same text.
    """
    facts: dict[str, Any] = {f"ss_{name}": settings.get(name) for name in SETTING_NAMES.split()}
    facts |= {key: settings.get(name) for key, name in RENAMED_SETTINGS.items()}
    facts |= _base_entries(base) | _data_entries(data) | _progress_entries(progress)
    facts["ss_network_module"] = str(settings.get("network_module", "networks.lora"))
    if settings.get("network_args"):
        facts["ss_network_args"] = json.dumps(settings["network_args"])
    facts |= _modelspec_entries(base, data, settings)
    if clock is not None:
        facts |= _clock_entries(clock)
    return {key: str(value) for key, value in sorted(facts.items())}


def least_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """What is left with no_metadata: the kind of the base model and of the layers, and what modelspec asks for."""
    return {key: value for key, value in metadata.items() if key in LEAST or key.startswith("modelspec.")}


def _base_entries(base: BaseFacts) -> dict[str, Any]:
    version, _ = BASE_NAMES[base.kind, base.v_prediction]
    entries: dict[str, Any] = {
        "ss_base_model_version": version,
        "ss_v2": base.kind == "sd21",
        "ss_sd_model_name": base.checkpoint.name,
    }
    if base.hashes:
        entries |= {"ss_sd_model_hash": base.hashes.short, "ss_new_sd_model_hash": base.hashes.full}
    if base.vae:
        entries["ss_vae_name"] = base.vae.name
    if base.vae_hashes:
        entries |= {"ss_vae_hash": base.vae_hashes.short, "ss_new_vae_hash": base.vae_hashes.full}
    return entries


def _data_entries(data: DataFacts) -> dict[str, Any]:
    height, width = data.resolution_px
    buckets = {
        str(number): {"resolution": [bucket_width, bucket_height], "count": count}
        for number, ((bucket_height, bucket_width), count) in enumerate(data.buckets.items())
    }
    tags = {name: dict(folder.tags) for name, folder in data.folders.items() if folder.tags}
    return {
        "ss_resolution": (width, height),
        "ss_bucket_info": json.dumps({"buckets": buckets, "mean_img_ar_error": data.mean_bucket_error}),
        "ss_dataset_dirs": _folders(data.folders),
        "ss_reg_dataset_dirs": _folders(data.regularisation_folders),
        "ss_tag_frequency": json.dumps(tags),
        "ss_num_train_images": _images(data.folders),
        "ss_num_reg_images": _images(data.regularisation_folders),
        "ss_num_validation_images": data.validation_images,
        **({"ss_datasets": data.described} if data.described else {}),
    }


def _folders(folders: Mapping[str, FolderFacts]) -> str:
    return json.dumps({name: {"n_repeats": f.repeats, "img_count": f.images} for name, f in folders.items()})


def _images(folders: Mapping[str, FolderFacts]) -> int:
    return sum(folder.repeats * folder.images for folder in folders.values())


def _progress_entries(progress: ProgressFacts) -> dict[str, Any]:
    return {
        "ss_epoch": progress.epoch,
        "ss_steps": progress.step,
        "ss_num_epochs": progress.epochs,
        "ss_num_batches_per_epoch": progress.batches_per_epoch,
        "ss_total_batch_size": progress.total_batch_size,
    }


def _modelspec_entries(base: BaseFacts, data: DataFacts, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of https://github.com/Stability-AI/ModelSpec."""
    _, architecture = BASE_NAMES[base.kind, base.v_prediction]
    height, width = data.resolution_px
    least, most = settings.get("min_timestep"), settings.get("max_timestep")
    wanted = {key: settings.get(name) for key, name in MODELSPEC_SETTINGS.items()}
    return {key: value for key, value in wanted.items() if value not in (None, "")} | {
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": IMPLEMENTATIONS[base.kind],
        "modelspec.implementation_version": f"lora_trainer/{__version__}",
        "modelspec.prediction_type": "v" if base.v_prediction else "epsilon",
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.timestep_range": f"{least or 0},{1000 if most is None else most}",
        "modelspec.title": settings.get("metadata_title") or settings.get("output_name"),
    }


def _clock_entries(clock: ClockFacts) -> dict[str, Any]:
    finished = datetime.fromtimestamp(int(clock.finished_at), tz=timezone.utc)
    return {
        "ss_training_started_at": clock.started_at,
        "ss_training_finished_at": clock.finished_at,
        "ss_session_id": clock.session_id,
        "modelspec.date": finished.replace(tzinfo=None).isoformat(),
    }


def with_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """Add the two hashes by which A1111 recognises the file whatever its metadata become."""
    data = safetensors_bytes(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    header_length = int.from_bytes(data[:8], "little")
    full = hashlib.sha256(memoryview(data)[8 + header_length :]).hexdigest()
    return {**metadata, "sshs_model_hash": full, "sshs_legacy_hash": _short_hash(data[WINDOW_START:WINDOW_END])}


def model_hashes(path: Path) -> ModelHashes | None:
    """The hashes of a checkpoint file. A folder has none. Reads the whole file: seconds per gigabyte."""
    if path.is_dir():
        return None
    with path.open("rb") as file:
        file.seek(WINDOW_START)
        short = _short_hash(file.read(WINDOW_END - WINDOW_START))
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return ModelHashes(short, digest.hexdigest())


def _short_hash(window: bytes) -> str:
    return hashlib.sha256(window).hexdigest()[:8]
