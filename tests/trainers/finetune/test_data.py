"""The pictures of a finetune preset, and what each of its data keys changes in a step."""

from __future__ import annotations

import logging
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.data.batches import Share
from lora_trainer.errors import Refusal
from lora_trainer.models.tokenizers import clip_tokenizer
from lora_trainer.trainers.diffusion.text import CaptionTokens
from lora_trainer.trainers.finetune.data import FinetuneData, FinetuneNoise
from lora_trainer.trainers.finetune.pictures import (
    FinetunePictures,
    epoch_plan,
    find_items,
    finetune_pictures,
    say_about_pictures,
    usage_of,
    write_epoch_schedule,
)

PHOTOS = Path(__file__).parents[3] / "presets" / "photos" / "2_photo"
NAMES = ("cat", "coffee", "coins", "galaxies", "rocket")

MakePreset = Callable[..., FinetunePreset]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs of several shapes."""
    folder = tmp_path_factory.mktemp("bilder ä")
    for name in NAMES:
        for suffix in (".jpg", ".txt"):
            shutil.copy(PHOTOS / f"{name}{suffix}", folder)
    return folder


@pytest.fixture(scope="module")
def tokens() -> CaptionTokens:
    return CaptionTokens((clip_tokenizer(),), 75)


@pytest.fixture
def make(root: Path) -> MakePreset:
    def preset(**keys: Any) -> FinetunePreset:
        given = {"data_root": str(root), "resolution": 128, "batch_size": 2, "cond_dropout": 0.0, **keys}
        return FinetunePreset(resume_ckpt="base", **given)

    return preset


def data_of(preset: FinetunePreset, tokens: CaptionTokens, share: Share | None = None, **more: Any) -> FinetuneData:
    share = share or Share(0, 1, preset.batch_size)
    pictures = finetune_pictures(preset, 555).trained
    plan = epoch_plan(preset, pictures, share.world * share.per_device * preset.grad_accum, 555)
    noise = more.pop("noise", FinetuneNoise())
    return FinetuneData(pictures, plan, usage_of(preset, 555), tokens, noise, share, None, 0.18, **more)


def names(pictures: FinetunePictures) -> dict[str, set[str]]:
    found = {name: {item.name for item in each.items} for name, each in pictures.measured}
    return {"": {item.name for item in pictures.trained.items}, **found}


def test_pictures_are_set_apart_by_their_share(make: MakePreset, root: Path, tmp_path: Path) -> None:
    every = {f"{name}.jpg" for name in NAMES}
    assert names(finetune_pictures(make(), 1)) == {"": every}
    found = names(finetune_pictures(make(val_split_mode="automatic", auto_split_proportion=0.21), 1))
    assert len(found["val"]) == 2  # rounded up
    assert found[""] | found["val"] == every
    assert not found[""] & found["val"]
    again = names(finetune_pictures(make(val_split_mode="automatic", auto_split_proportion=0.21, seed=9), 9))
    assert again == found  # val_seed decides
    for name in ("cat", "coffee"):
        shutil.copy(root / f"{name}.jpg", tmp_path)
    manual = make(
        val_split_mode="manual", manual_data_root=str(tmp_path), extra_manual_datasets=(("extra", str(root)),),
        stabilize_training_loss=True,
    )  # fmt: skip
    found = names(finetune_pictures(manual, 1))
    assert (found[""], found["val"], found["extra"]) == (every, {"cat.jpg", "coffee.jpg"}, every)
    assert len(found["stabilize-train"]) == 1
    assert names(finetune_pictures(make(val_split_mode="automatic", validate_training=False), 1)) == {"": every}


def test_all_folders_that_are_wrong_are_named(make: MakePreset, tmp_path: Path) -> None:
    preset = make(data_root=str(tmp_path / "a"), val_split_mode="manual", manual_data_root=str(tmp_path / "b"))
    with pytest.raises(Refusal) as caught:
        find_items(preset)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["data_root", "manual_data_root"]
    with pytest.raises(Refusal, match="leaves none to train"):
        finetune_pictures(make(val_split_mode="automatic", auto_split_proportion=1.0), 1)


def test_pictures_that_are_encoded_first_are_not_decoded_before(make: MakePreset, root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    for file in sorted(broken.glob("*.jpg")):
        Image.open(file).save(file, "PNG")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    cached = {"data_root": str(broken), "cache_latents": True}
    assert len(finetune_pictures(make(**cached), 555).trained.samples) == 5
    for bad, keys in [
        (5, {"data_root": str(broken)}),
        (5, {**cached, "train_vae": True}),
        (5, {**cached, "data_root": str(root), "val_split_mode": "manual", "manual_data_root": str(broken)}),
        (5, {**cached, "val_split_mode": "automatic", "auto_split_proportion": 0.2}),
    ]:
        with pytest.raises(Refusal) as caught:
            finetune_pictures(make(**keys), 555)
        assert len(caught.value.problems) == bad
        assert all(": damaged (" in problem for problem in caught.value.problems)


def test_a_step_has_one_shape_and_any_step_can_be_asked_for(make: MakePreset, tokens: CaptionTokens) -> None:
    data = data_of(make(), tokens)
    for step in range(data.plan.steps_per_epoch):
        (micro,) = data(step)
        assert micro["pixels"].shape[0] == micro["total"] == 2
        assert micro["pixels"].shape[2:] == tuple(8 * side for side in micro["noise"].shape[2:])
    again = pickle.loads(pickle.dumps(data))(3)[0]
    first = data(3)[0]
    assert all(torch.equal(first[key], again[key]) for key in first if torch.is_tensor(first[key]))
    assert first["names"] == again["names"]


def test_processes_and_passes_share_a_step_without_changing_it(make: MakePreset, tokens: CaptionTokens) -> None:
    whole = data_of(make(batch_size=4), tokens, Share(0, 1, 4), crop_jitter=0.02)(1)[0]
    halves = [data_of(make(batch_size=2), tokens, Share(rank, 2, 2), crop_jitter=0.02)(1)[0] for rank in range(2)]
    passes = data_of(make(batch_size=1, grad_accum=4), tokens, Share(0, 1, 1), crop_jitter=0.02)(1)
    for key in ("pixels", "noise", "timestep", "loss_weight", "vae_noise", "size_condition"):
        assert torch.equal(whole[key], torch.cat([half[key] for half in halves]))
        assert torch.equal(whole[key], torch.cat([micro[key] for micro in passes]))


def test_a_filled_batch_and_a_scaled_picture_count_otherwise(
    make: MakePreset, tokens: CaptionTokens, root: Path, tmp_path: Path
) -> None:
    shutil.copy(root / "coins.jpg", tmp_path)
    (tmp_path / "loss_scale.txt").write_text("0.5", encoding="utf-8")
    data = data_of(make(data_root=str(tmp_path), batch_size=4), tokens)
    (micro,) = data(0)
    assert micro["names"] == ["coins.jpg"] * 4
    assert micro["loss_weight"].tolist() == pytest.approx([0.5 * 0.25**1.5] * 4)
    assert len({micro["noise"][row].sum().item() for row in range(4)}) == 4


def changed(data: FinetuneData, other: FinetuneData) -> set[str]:
    """What differs in the first epoch's steps."""
    found = set()
    for step in range(data.plan.steps_per_epoch):
        for ours, theirs in zip(data(step), other(step), strict=True):
            assert ours["names"] == theirs["names"]
            same = {key for key, value in ours.items() if torch.is_tensor(value) and torch.equal(value, theirs[key])}
            found |= {key for key, value in ours.items() if torch.is_tensor(value)} - same
            found |= {"token_ids"} if not torch.equal(ours["token_ids"][0], theirs["token_ids"][0]) else set()
            found |= theirs.keys() - ours.keys()
    return found


@pytest.mark.parametrize(
    ("keys", "more", "expected"),
    [
        ({"flip_p": 1.0}, {}, {"pixels", "size_condition"}),
        ({"cond_dropout": 1.0}, {}, {"token_ids"}),
        ({"shuffle_tags": True}, {}, {"token_ids"}),
        ({}, {"crop_jitter": 0.02}, {"pixels", "size_condition"}),
        ({}, {"noise": FinetuneNoise(offset=0.1)}, {"noise"}),
        ({}, {"noise": FinetuneNoise(pyramid_discount=0.5)}, {"noise"}),
        ({}, {"noise": FinetuneNoise(text_perturbation=1.0, text_shape=(77, 8))}, {"text_noise"}),
        ({}, {"noise": FinetuneNoise(first_timestep=900)}, {"timestep"}),
    ],
)
def test_each_key_changes_what_it_names_and_nothing_else(
    make: MakePreset, tokens: CaptionTokens, keys: dict[str, Any], more: dict[str, Any], expected: set[str]
) -> None:
    found = changed(data_of(make(), tokens), data_of(make(**keys), tokens, **more))
    assert found - {"size_condition"} == expected - {"size_condition"}
    assert found <= expected


def test_timesteps_keep_to_their_span(make: MakePreset, tokens: CaptionTokens) -> None:
    data = data_of(make(), tokens, noise=FinetuneNoise(first_timestep=300, end_timestep=310))
    steps = [int(timestep) for step in range(30) for timestep in data(step)[0]["timestep"]]
    assert set(steps) <= set(range(300, 310))
    assert len(set(steps)) > 5


def test_the_schedule_is_written(make: MakePreset, tmp_path: Path, root: Path) -> None:
    preset = make()
    pictures = finetune_pictures(preset, 555).trained
    plan = epoch_plan(preset, pictures, 2, 555)
    path = write_epoch_schedule(tmp_path, plan, 9, pictures.samples)
    assert path.name == "ep9_batch_schedule.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 * plan.steps_per_epoch
    pattern = re.compile(r"step:(\d{5}), wh:\[(\d+), (\d+)\], r:([01]), path:(.+)")
    found = [match.groups() for line in lines if (match := pattern.fullmatch(line))]
    assert len(found) == len(lines)
    assert [int(step) for step, *_ in found] == [step for step in range(plan.steps_per_epoch) for _ in range(2)]
    assert {Path(path).name for *_, path in found} == {f"{name}.jpg" for name in NAMES}
    assert Path(found[0][-1]).parent == root


def test_pictures_that_are_too_small_are_listed(
    make: MakePreset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    preset = make(resolution=1024)
    pictures = finetune_pictures(preset, 555).trained
    with caplog.at_level(logging.WARNING):
        say_about_pictures(tmp_path / "run", pictures, epoch_plan(preset, pictures, 8, 555))
    listed = (tmp_path / "run" / "undersized_images.txt").read_text(encoding="utf-8").splitlines()
    assert len(listed) == 5
    assert "5 of 5 pictures are smaller than they are trained at" in caplog.text
    assert "are duplicates that fill batches" in caplog.text
