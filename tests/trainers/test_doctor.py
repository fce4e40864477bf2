"""The numbers of the page about a data set are those of the training."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from lora_trainer.config.reader import load_preset
from lora_trainer.data.doctor.dataset import MASK, REGULARISATION
from lora_trainer.data.doctor.examination import Examination, examine
from lora_trainer.data.survey import summarize
from lora_trainer.errors import Refusal
from lora_trainer.report.doctor.page import all_findings, buckets
from lora_trainer.trainers.doctor import dataset_of
from lora_trainer.trainers.finetune.pictures import epoch_plan, finetune_pictures
from lora_trainer.trainers.lora.data import training_set
from tests.data.doctor.test_duplicates import scene

WritePreset = Callable[..., Path]


def look(preset: Path) -> Examination:
    dataset = dataset_of(load_preset(preset))
    assert dataset is not None
    return examine(dataset, workers=2)


def steps(found: Examination) -> int:
    return sum(bucket.batches for bucket in buckets(found))


def test_buckets_of_a_lora_with_regularisation_are_those_of_its_plan(
    write_preset: WritePreset, tmp_path: Path, photos: Path
) -> None:
    place = tmp_path / "reg" / "1_photo"
    place.mkdir(parents=True)
    for number in range(12):
        scene(number, (120 + 8 * number, 128)).save(place / f"{number:02}.png")
    preset = write_preset(reg_data_dir=str(place.parent), train_batch_size=3)
    found = look(preset)
    surveyed = training_set(cast(Any, load_preset(preset).preset), 1)
    assert {size: count for (_, size), count in found.uses_in().items()} == summarize(surveyed.samples).uses_in
    assert sum(entry.use == REGULARISATION for entry in found.dataset.entries) == 12
    titles = [finding.title for finding in all_findings(found)]
    assert "4 regularisation pictures are not needed" in titles  # 8 uses an epoch


def test_masks_are_looked_at_and_are_no_pictures(write_preset: WritePreset, tmp_path: Path, photos: Path) -> None:
    masks = tmp_path / "masks" / "2_photo"
    masks.mkdir(parents=True)
    for path in (photos / "2_photo").glob("*.jpg"):
        Image.new("L", (64, 64), 255).save(masks / f"{path.stem}.png")
    preset = write_preset(masked_loss=True, conditioning_data_dir=str(masks.parent))
    found = look(preset)
    assert found.wrong == ()
    assert len(found.pictures) == 4
    assert [found.dataset.entries[entry.of].name for entry in found.dataset.entries if entry.of is not None] == [
        f"2_photo/{name}.jpg" for name in ("cat", "coffee", "coins", "galaxies")
    ]
    (masks / "cat.png").write_bytes(b"")
    assert [(each.sentence.rpartition("/")[2], each.kind) for each in look(preset).wrong] == [
        ("cat.png: the mask cannot be read (the file is empty)", "damaged")
    ]
    assert sum(entry.use == MASK for entry in found.dataset.entries) == 4


def test_masks_that_are_asked_for_and_not_there_are_refused(write_preset: WritePreset, photos: Path) -> None:
    preset = write_preset(masked_loss=True)
    with pytest.raises(Refusal) as refused:
        training_set(cast(Any, load_preset(preset).preset), 1)
    assert [each.sentence for each in look(preset).wrong] == list(refused.value.problems)
    clear = Image.open(photos / "2_photo" / "cat.jpg").convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    clear.save(photos / "2_photo" / "clear.png")
    assert look(preset).wrong == ()


def test_data_sets_of_a_description_have_their_own_batches(
    write_preset: WritePreset, tmp_path: Path, photos: Path
) -> None:
    description = tmp_path / "sets.toml"
    folder = (photos / "2_photo").as_posix()
    tables = [
        f'[[datasets]]\nresolution = {side}\nbatch_size = {batch}\n[[datasets.subsets]]\nimage_dir = "{folder}"\n'
        f"num_repeats = {repeats}\n"
        for side, batch, repeats in ((96, 2, 3), (64, 5, 1))
    ]
    description.write_text("".join(tables), encoding="utf-8")
    preset = write_preset(dataset_config=str(description))
    surveyed = training_set(cast(Any, load_preset(preset).preset), 1)
    found = look(preset)
    assert len(found.pictures) == 8
    both = found.uses_in()
    assert sum(count for (group, _), count in both.items() if group == 0) == 12
    assert sum(count for (group, _), count in both.items() if group == 1) == 4
    wanted = sum(math.ceil(count / (2, 5)[group]) for (group, _), count in both.items())
    assert steps(found) == wanted
    assert {sample.placement.bucket_px for sample in surveyed.samples} == {size for _, size in both}


@pytest.mark.parametrize("batch", [1, 3])
def test_steps_of_a_fine_tuning_are_those_of_its_epochs(
    write_finetune: Callable[..., Path], photos: Path, batch: int
) -> None:
    (photos / "2_photo" / "multiply.txt").write_text("2")
    preset_file = write_finetune(batch_size=batch)
    preset: Any = load_preset(preset_file).preset
    pictures = finetune_pictures(preset, 1)
    plan = epoch_plan(preset, pictures.trained, preset.batch_size * preset.grad_accum, 1)
    found = look(preset_file)
    assert steps(found) == plan.steps_per_epoch
    assert sum(found.uses_in().values()) == 2 * len(pictures.trained.items)


def test_measured_folders_are_compared_with_the_trained_one(
    write_finetune: Callable[..., Path], photos: Path, tmp_path: Path
) -> None:
    apart = tmp_path / "apart"
    apart.mkdir()
    shutil.copy(photos / "2_photo" / "cat.jpg", apart / "the same cat.jpg")
    scene(1).save(apart / "other.png")
    preset = write_finetune(val_split_mode="manual", manual_data_root=str(apart))
    titles = [finding.title for finding in all_findings(look(preset))]
    assert "1 measured picture is trained too" in titles
    assert "1 picture is the copy of another file" not in titles


def test_what_a_folder_says_of_itself_is_no_lost_caption(write_finetune: Callable[..., Path], photos: Path) -> None:
    (photos / "2_photo" / "multiply.txt").write_text("1.5")
    (photos / "2_photo" / "local.yaml").write_text("flip_p: 0.5")
    (photos / "2_photo" / "lost.txt").write_text("a cat")
    found = look(write_finetune())
    assert [name for name, _ in found.dataset.strays] == ["2_photo/lost.txt"]
