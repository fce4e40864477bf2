"""Data sets through a training: regularisation, masks, augmentation, and a dataset_config with several of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.config.reader import load_preset
from lora_trainer.engine.precision import Precision
from lora_trainer.engine.processes import Processes
from lora_trainer.errors import Refusal
from lora_trainer.trainers.lora.job import inspect_lora
from lora_trainer.trainers.lora.trainer import LoraTrainer, build_lora
from tests.models.standard_lora import read_layers

Train = Callable[..., int]
WritePreset = Callable[..., Path]
Rows = Callable[[], list[dict[str, Any]]]


def built(preset: Path) -> LoraTrainer:
    return build_lora(inspect_lora(load_preset(preset), 1, 7), Processes(), Precision("no", "cpu"))


@pytest.fixture
def regularisation(tmp_path: Path, photos: Path) -> Path:
    folder = tmp_path / "usual ones" / "1_cat"
    folder.mkdir(parents=True)
    for number, picture in enumerate(sorted(photos.rglob("*.png"))[:3] or sorted(photos.rglob("*.jpg"))[:3]):
        shutil.copy(picture, folder / f"{number}{picture.suffix}")
    return folder.parent


def test_regularisation_is_used_as_often_as_the_training_images(
    write_preset: WritePreset, train: Train, out: Path, regularisation: Path
) -> None:
    preset = write_preset("sd15", reg_data_dir=str(regularisation), prior_loss_weight=0.25, max_train_steps=2)
    trainer = built(preset)
    trained = sum(sample.repeats for sample in trainer.job.samples if not sample.is_reg)
    known = [sample for sample in trainer.job.samples if sample.is_reg]
    assert trained == sum(sample.repeats for sample in known) == 8
    assert [sample.repeats for sample in known] == [3, 3, 2]
    assert trainer.steps_per_epoch >= 8  # both kinds, two at a time
    weights = torch.cat(
        [micro["loss_weight"] for step in range(trainer.steps_per_epoch) for micro in trainer.data(step)]
    )
    assert Counter(weights.tolist()) == {1.0: 8, 0.25: 8}
    assert train(preset) == 0
    metadata = read_layers(out / "tiny.safetensors").metadata
    assert json.loads(metadata["ss_reg_dataset_dirs"]) == {"1_cat": {"n_repeats": 1, "img_count": 3}}
    assert (metadata["ss_num_train_images"], metadata["ss_num_reg_images"]) == ("8", "3")
    assert json.loads(metadata["ss_dataset_dirs"]).keys() == {sample.folder for sample in trainer.job.samples[:1]}


def test_a_prior_weight_of_zero_leaves_the_training_images_alone(
    write_preset: WritePreset, regularisation: Path
) -> None:
    trainer = built(write_preset("sd15", reg_data_dir=str(regularisation), prior_loss_weight=0))
    (phase,) = trainer.phases
    for step in range(trainer.steps_per_epoch):
        for micro in trainer.data(step):
            losses = phase.loss(phase.module, micro).per_sample
            assert torch.equal(losses == 0, micro["loss_weight"] == 0)


def test_the_loss_of_what_a_mask_covers_does_not_count(write_preset: WritePreset, photos: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for number, picture in enumerate(sorted(path for path in photos.rglob("*") if path.suffix in (".png", ".jpg"))):
        with Image.open(picture) as image:
            Image.new("L", image.size, 0 if number == 0 else 255).save(masks / f"{picture.stem}.png")
    first = sorted(path for path in photos.rglob("*") if path.suffix in (".png", ".jpg"))[0]
    keys = {"masked_loss": True, "conditioning_data_dir": str(masks)}
    trainer = built(write_preset("sd15", **keys))
    (phase,) = trainer.phases
    seen = 0
    for step in range(trainer.steps_per_epoch):
        for micro in trainer.data(step):
            losses = phase.loss(phase.module, micro).per_sample
            hidden = torch.tensor([name.endswith(first.name) for name in micro["names"]])
            assert torch.equal(losses == 0, hidden)
            seen += int(hidden.sum())
    assert seen > 0
    (masks / f"{first.stem}.png").unlink()
    with pytest.raises(Refusal, match=f"there is no mask for {first.name}; a mask has the name of its picture"):
        inspect_lora(load_preset(write_preset("sd15", **keys)), 1, 7)


def test_transparency_is_the_mask_without_a_folder_of_masks(write_preset: WritePreset, photos: Path) -> None:
    with pytest.raises(Refusal, match="masked_loss: no picture has a mask"):
        inspect_lora(load_preset(write_preset("sd15", masked_loss=True)), 1, 7)
    folder = next(path for path in sorted(photos.iterdir()) if path.is_dir())
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 4), np.uint8)
    noise[..., 3] = 255
    noise[:48, :, 3] = 0
    Image.fromarray(noise).save(folder / "zz clear.png")
    trainer = built(write_preset("sd15", masked_loss=True, flip_aug=True))
    masks: dict[str, torch.Tensor] = {}
    for step in range(trainer.steps_per_epoch):
        for micro in trainer.data(step):
            masks |= dict(zip(micro["names"], micro["mask"], strict=True))
    clear = masks.pop(f"{folder.name}/zz clear.png")
    assert clear.shape == (1, 12, 12)
    assert torch.equal(clear, torch.cat([torch.zeros(1, 6, 12), torch.ones(1, 6, 12)], 1))
    assert all(bool((mask == 1).all()) for mask in masks.values())


def test_images_change_at_every_step_and_alike_after_a_stop(write_preset: WritePreset) -> None:
    keys = {
        "cache_latents": False,
        "color_aug": True,
        "random_crop": True,
        "enable_bucket": False,
        "max_resolution": 64,
    }
    trainer, again = built(write_preset("sdxl", **keys)), built(write_preset("sdxl", **keys))
    crops: dict[str, set[tuple[float, ...]]] = {}
    steps = range(3 * trainer.steps_per_epoch)
    for step in steps:
        for micro, same in zip(trainer.data(step), again.data(step), strict=True):
            assert torch.equal(micro["pixels"], same["pixels"])
            for name, told in zip(micro["names"], micro["size_condition"], strict=True):
                crops.setdefault(name, set()).add(tuple(told[2:4].tolist()))
    assert max(len(found) for found in crops.values()) >= 3


def test_a_dataset_config_trains_several_sizes_in_batches_of_their_own(
    write_preset: WritePreset, train: Train, out: Path, rows: Rows, photos: Path, tmp_path: Path
) -> None:
    folder = next(path for path in sorted(photos.iterdir()) if path.is_dir())
    described = tmp_path / "sets.toml"
    described.write_text(
        f"""
        [general]
        bucket_reso_steps = 32
        [[datasets]]
        resolution = 96
        batch_size = 2
          [[datasets.subsets]]
          image_dir = '{folder.as_posix()}'
          num_repeats = 2
        [[datasets]]
        resolution = 64
        batch_size = 3
          [[datasets.subsets]]
          image_dir = '{folder.as_posix()}'
          caption_prefix = "small"
          num_repeats = 3
        """,
        encoding="utf-8",
    )
    preset = write_preset("sd15", train_data_dir="", dataset_config=str(described), epoch=1)
    trainer = built(preset)
    pictures = len(trainer.job.samples) // 2
    sizes: Counter[int] = Counter()
    for step in range(trainer.steps_per_epoch):
        batch = trainer.data.plan.batch_of(step)
        (dataset,) = {trainer.job.subsets[trainer.job.samples[item].subset].dataset for item in batch}
        assert len(batch) <= (2, 3)[dataset]
        sizes[dataset] += len(batch)
        limit = (96 * 96, 64 * 64)[dataset]
        assert all(np.prod(trainer.job.samples[item].placement.bucket_px) <= limit for item in batch)
        assert all(micro["latents"].shape[0] == len(batch) for micro in trainer.data(step))
    assert sizes == {0: 2 * pictures, 1: 3 * pictures}
    assert train(preset) == 0
    assert len(rows()) == trainer.steps_per_epoch
    described_sets = json.loads(read_layers(out / "tiny.safetensors").metadata["ss_datasets"])
    assert [(each["resolution"], each["batch_size_per_device"]) for each in described_sets] == [
        ([96, 96], 2),
        ([64, 64], 3),
    ]
    small = described_sets[1]["subsets"][0]
    assert (small["num_repeats"], small["img_count"], small["caption_prefix"]) == (3, pictures, "small")
    assert (small["image_dir"], described_sets[1]["num_train_images"]) == (folder.name, 3 * pictures)
    described.write_text(described.read_text(encoding="utf-8") + "color_aug = true\n", encoding="utf-8")
    with pytest.raises(Refusal, match="color_aug changes the image at every step, but cache_latents encodes it once"):
        inspect_lora(load_preset(preset), 1, 7)


def test_metadata_files_hold_the_captions(write_preset: WritePreset, photos: Path, tmp_path: Path) -> None:
    folder = next(path for path in sorted(photos.iterdir()) if path.is_dir())
    picture = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))[0]
    captions = tmp_path / "meta.json"
    captions.write_text(json.dumps({picture.stem: {"caption": "a cat", "tags": "green, eyes"}}), encoding="utf-8")
    described = tmp_path / "sets.toml"
    described.write_text(
        f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '{folder.as_posix()}'\n"
        f"metadata_file = '{captions.as_posix()}'\n",
        encoding="utf-8",
    )
    preset = write_preset("sd15", train_data_dir="", dataset_config=str(described))
    job = inspect_lora(load_preset(preset), 1, 7)
    assert [(sample.path, sample.caption) for sample in job.samples] == [(picture, "a cat, green, eyes")]


def test_the_colours_below_a_transparency_that_is_a_mask_are_trained(write_preset: WritePreset, photos: Path) -> None:
    folder = photos / "1_thin"
    folder.mkdir()
    Image.new("RGBA", (96, 96), (200, 40, 0, 51)).save(folder / "thin.png")

    def thin(**keys: Any) -> dict[str, torch.Tensor]:
        trainer = built(write_preset("sd15", cache_latents=False, **keys))
        micros = (micro for step in range(trainer.steps_per_epoch) for micro in trainer.data(step))
        micro = next(micro for micro in micros if "1_thin/thin.png" in micro["names"])
        row = micro["names"].index("1_thin/thin.png")
        return {key: value[row] for key, value in micro.items() if key in ("pixels", "mask")}

    for keys in ({"alpha_mask": True}, {"masked_loss": True}):
        found = thin(**keys)
        assert torch.allclose(found["mask"], torch.full((1, 12, 12), 0.2))
        assert ((found["pixels"][:, 5, 5] + 1) * 127.5).tolist() == pytest.approx([200, 40, 0], abs=1e-3)
    plain = thin()
    assert "mask" not in plain
    assert ((plain["pixels"][:, 5, 5] + 1) * 127.5).tolist() == pytest.approx([244, 212, 204], abs=1.001)


def test_what_one_data_set_holds_out_no_other_one_trains(
    write_preset: WritePreset, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = next(path for path in sorted(photos.iterdir()) if path.is_dir())
    subset = f"[[datasets.subsets]]\nimage_dir = '{folder.as_posix()}'\n"
    described = tmp_path / "sets.toml"
    described.write_text(
        f"[[datasets]]\nvalidation_split = 0.5\n{subset}[[datasets]]\nresolution = 64\n{subset}", encoding="utf-8"
    )
    preset = write_preset("sd15", train_data_dir="", dataset_config=str(described), save_best=True)
    job = inspect_lora(load_preset(preset), 1, 7)
    hidden = {sample.digest for sample in job.held_out}
    assert (len(hidden), len(job.samples), job.validation.enabled) == (2, 4, True)
    assert hidden.isdisjoint(sample.digest for sample in job.samples)
    assert {sample.subset for sample in job.samples} == {0, 1}
    assert "save_best" not in load_preset(preset).inert
    assert not caplog.records
    described.write_text(f"[[datasets]]\n{subset}", encoding="utf-8")
    assert not inspect_lora(load_preset(preset), 1, 7).validation.enabled
    assert [record.getMessage() for record in caplog.records] == [
        "save_best has no effect: no images are held out; set validation_split"
    ]


def test_pictures_that_are_encoded_first_are_not_decoded_before(write_preset: WritePreset, photos: Path) -> None:
    files = sorted(photos.rglob("*.jpg"))
    for file in files:
        Image.open(file).save(file, "PNG")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    job = inspect_lora(load_preset(write_preset("sd15", cache_latents=True)), 1, 7)
    assert len(job.samples) == 4
    with pytest.raises(Refusal) as caught:
        inspect_lora(load_preset(write_preset("sd15", cache_latents=False)), 1, 7)
    assert [problem.partition(": damaged")[0] for problem in caught.value.problems] == [str(file) for file in files]
    with pytest.raises(Refusal) as caught:
        inspect_lora(load_preset(write_preset("sd15", cache_latents=True, validation_split=0.5)), 1, 7)
    assert len(caught.value.problems) == 4  # those that are held out have no cache, and with them all are named
    with pytest.raises(Refusal) as caught:
        build_lora(job, Processes(), Precision("no", "cpu"))
    assert len(caught.value.problems) == 4


def test_a_data_set_file_is_held_against_the_caches(write_preset: WritePreset, photos: Path, tmp_path: Path) -> None:
    folder = next(path for path in sorted(photos.iterdir()) if path.is_dir())
    described = tmp_path / "sets.toml"
    described.write_text(
        f"[[datasets]]\nrandom_crop = true\n[[datasets.subsets]]\nimage_dir = '{folder.as_posix()}'\n"
        "shuffle_caption = true\n",
        encoding="utf-8",
    )
    keys = {"train_data_dir": "", "dataset_config": str(described), "text_encoder_lr": 0}
    preset = write_preset("sdxl", sdxl_cache_text_encoder_outputs=True, **keys)
    with pytest.raises(Refusal) as caught:
        inspect_lora(load_preset(preset), 1, 7)
    where = f"{described}: {folder.as_posix()}"
    assert [problem.partition(" changes")[0] for problem in caught.value.problems] == [
        f"{where}: random_crop",
        f"{where}: shuffle_caption",
    ]


@pytest.mark.slow
def test_a_loader_process_changes_nothing(
    write_preset: WritePreset, train: Train, out: Path, photos: Path, regularisation: Path, tmp_path: Path
) -> None:
    folder = next(path for path in sorted(photos.iterdir()) if path.is_dir())
    described = tmp_path / "sets.toml"
    described.write_text(
        f"""
        [[datasets]]
        resolution = 96
          [[datasets.subsets]]
          image_dir = '{folder.as_posix()}'
          random_crop = true
          color_aug = true
          flip_aug = true
          [[datasets.subsets]]
          image_dir = '{(regularisation / "1_cat").as_posix()}'
          is_reg = true
        """,
        encoding="utf-8",
    )
    Image.new("RGBA", (96, 70), (9, 90, 200, 128)).save(folder / "veil.png")
    keys = {"cache_latents": False, "masked_loss": True, "prior_loss_weight": 0.5, "max_train_steps": 4}
    preset = write_preset("sd15", train_data_dir="", dataset_config=str(described), **keys)
    assert train(preset) == 0
    alone = (out / "tiny.safetensors").read_bytes()
    assert train(preset, "--restart", "--set", "max_data_loader_n_workers=1") == 0
    assert (out / "tiny.safetensors").read_bytes() == alone
