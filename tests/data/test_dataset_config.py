"""sd-scripts' TOML files: who wins over whom, what becomes of each key, and what is wrong with a file."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.data.captions import CaptionSettings
from lora_trainer.data.dataset_config import OF_CAPTIONS, read_dataset_config
from lora_trainer.data.subsets import sets_fingerprint
from lora_trainer.errors import Refusal

USUAL: dict[str, Any] = {
    **{each.name: each.default for each in fields(CaptionSettings)},
    "batch_size": 1, "resolution": (512, 512), "enable_bucket": True, "bucket_no_upscale": True,
    "bucket_reso_steps": 64, "min_bucket_reso": 256, "max_bucket_reso": 2048, "validation_split": 0.0,
    "validation_seed": 0, "caption_extension": ".txt", "flip_aug": False, "color_aug": False, "random_crop": False,
    "alpha_mask": False, "num_repeats": 1,
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Any:
    for name in ("girls", "boys", "what is usual", "masks"):
        (tmp_path / name).mkdir()

    def write(text: str) -> Path:
        path = tmp_path / "data set.toml"
        path.write_text(text.replace("HERE", tmp_path.as_posix()), encoding="utf-8")
        return path

    return write


def test_every_caption_key_of_ours_is_one_of_the_file() -> None:
    assert {each.name for each in fields(CaptionSettings)} == OF_CAPTIONS.keys()


def test_the_nearest_level_wins(config: Any) -> None:
    first, second = read_dataset_config(
        config(
            """
            [general]
            shuffle_caption = true
            caption_extention = ".caption"
            keep_tokens = 1
            bucket_reso_steps = 32
            cache_info = true
            [[datasets]]
            resolution = [768, 512]
            batch_size = 4
            keep_tokens = 2
              [[datasets.subsets]]
              image_dir = 'HERE/girls'
              class_tokens = 'girl'
              num_repeats = 10
              keep_tokens = 3
              flip_aug = true
              [[datasets.subsets]]
              image_dir = 'HERE/what is usual'
              is_reg = true
              shuffle_caption = false
            [[datasets]]
            resolution = 256
            validation_split = 0.25
            validation_seed = 9
              [[datasets.subsets]]
              image_dir = 'HERE/boys'
              conditioning_data_dir = 'HERE/masks'
              token_warmup_step = 0.5
            """
        ),
        USUAL,
    )
    assert (first.buckets.resolution_px, first.buckets.step_px, first.batch_size) == ((512, 768), 32, 4)
    assert (second.buckets.resolution_px, second.batch_size) == ((256, 256), 1)
    assert (second.validation_split, second.validation_seed, first.validation_split) == (0.25, 9, 0.0)
    girls, usual, boys = (*first.subsets, *second.subsets)
    assert (girls.name, girls.num_repeats, girls.class_tokens, girls.flip_aug) == ("girls", 10, "girl", True)
    assert (girls.captions.keep_tokens, usual.captions.keep_tokens, boys.captions.keep_tokens) == (3, 2, 1)
    assert (girls.captions.shuffle_caption, usual.captions.shuffle_caption) == (True, False)
    assert (usual.is_reg, usual.name, usual.num_repeats) == (True, "regularisation/what is usual", 1)
    assert {each.caption_extension for each in (girls, usual, boys)} == {".caption"}
    assert boys.conditioning_data_dir is not None
    assert (boys.dataset, boys.is_masked, girls.is_masked, boys.captions.token_warmup_step) == (1, True, False, 0.5)


def test_folders_of_one_name_are_kept_apart(config: Any, tmp_path: Path) -> None:
    (tmp_path / "more" / "girls").mkdir(parents=True)
    text = "[[datasets]]\n" + "".join(
        f"[[datasets.subsets]]\nimage_dir = 'HERE/{folder}'\n" for folder in ("girls", "more/girls", "girls")
    )
    (found,) = read_dataset_config(config(text), USUAL)
    assert [subset.name for subset in found.subsets] == ["girls", "girls (2)", "girls (3)"]


def test_the_fingerprint_is_of_the_settings(config: Any, tmp_path: Path) -> None:
    text = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'HERE/girls'\n"
    same = sets_fingerprint(read_dataset_config(config(text), USUAL))
    assert sets_fingerprint(read_dataset_config(config(text + "num_repeats = 1\n"), USUAL)) == same
    assert sets_fingerprint(read_dataset_config(config(text + "num_repeats = 2\n"), USUAL)) != same
    assert sets_fingerprint(read_dataset_config(config(text + "keep_tokens = 2\n"), USUAL)) != same
    moved = tmp_path / "else where" / "girls"
    moved.mkdir(parents=True)
    assert sets_fingerprint(read_dataset_config(config(text.replace("HERE", moved.parent.as_posix())), USUAL)) == same


SUBSET = "[[datasets.subsets]]\nimage_dir = 'HERE/girls'\n"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", [r"has no \[\[datasets\]\]; write one"]),
        ("[[datasets]]\n", [r"datasets\[0\] has no \[\[datasets.subsets\]\]"]),
        ("[[dataset]]\n", ["dataset: unknown table; did you mean datasets?", r"has no \[\[datasets\]\]"]),
        (f"[[datasets]]\nresolutoin = 1\n{SUBSET}", [r"\[0\]: resolutoin: unknown key; did you mean resolution"]),
        (f"[[datasets]]\n{SUBSET}num_repeats = 0\n", ["num_repeats: found 0; write a whole number from 1"]),
        (f"[[datasets]]\n{SUBSET}face_crop_aug_range = [1, 2]\n", ["crops around faces are not supported"]),
        ("[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 2\n", [r"subsets\[0\] has no image_dir"]),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'nowhere'\n", ["nowhere: there is no such folder"]),
        ("[general]\nbatch_size = 'x'\n[[datasets]]\n[[datasets.subsets]]\nimage_dirs = 1\n",
         ["general: batch_size: found 'x'", "image_dirs: unknown key; did you mean image_dir", "has no image_dir"]),
        (f"[[datasets]]\n{SUBSET}resolution = 64\n", [r"is for a whole data set; write it in \[\[datasets"]),
        (f"[[datasets]]\nis_reg = true\n{SUBSET}", [r"is for one folder; write it in its \[\[datasets.subsets"]),
        (f"[[datasets]]\nbucket_reso_steps = 20\n{SUBSET}", ["found 20; write a whole number that is a multiple of 8"]),
        (f"[[datasets]]\ncaption_separator = ''\n{SUBSET}", ["empty; write it, or leave the key out"]),
        (f"[[datasets]]\nnetwork_multiplier = 0.5\n{SUBSET}", ["a strength for each data set is not supported"]),
        ("[[datasets", ["dataset_config: .* is not TOML"]),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_with_every_problem(config: Any, text: str, problems: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        read_dataset_config(config(text), USUAL)
    assert len(caught.value.problems) == len(problems)
    for problem, found in zip(problems, caught.value.problems, strict=True):
        assert re.search(problem, found), found


def test_a_file_in_json_says_the_same(config: Any, tmp_path: Path) -> None:
    toml = config(f"[general]\nbatch_size = 3\n[[datasets]]\nclass_tokens = 'one'\n{SUBSET}")
    path = tmp_path / "set.json"
    folder = {"image_dir": (tmp_path / "girls").as_posix()}
    content = {"general": {"batch_size": 3}, "datasets": [{"class_tokens": "one", "subsets": [folder]}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_dataset_config(path, USUAL) == read_dataset_config(toml, USUAL)
    for text, problem in (("{", "is not JSON"), ("[]", "must hold an object with datasets")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(Refusal, match=problem):
            read_dataset_config(path, USUAL)


def test_what_does_nothing_is_said(config: Any, caplog: pytest.LogCaptureFixture) -> None:
    text = "[[datasets]]\nbucket_reso_steps = 1\nnetwork_multiplier = 1.0\nresize_interpolation = 'area'\n"
    with caplog.at_level(logging.INFO):
        (found,) = read_dataset_config(config(text + SUBSET + "cache_info = true\n"), USUAL)
    assert found.buckets.step_px == 64
    said = [record.getMessage().partition(": datasets")[2] for record in caplog.records]
    assert said == [
        "[0]: bucket_reso_steps: 1 is read as 64",
        "[0]: resize_interpolation has no effect: pictures are averaged when they shrink, and enlarged with Lanczos",
        "[0].subsets[0]: cache_info has no effect: the sizes of the pictures are found at every start, when all of "
        "them are checked",
    ]


def test_a_backslash_in_double_quotes_is_told(config: Any) -> None:
    with pytest.raises(Refusal, match=r"is not TOML: .*; put what has a backslash, such as a folder, in single quotes"):
        read_dataset_config(config('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "C:\\Users\\me"\n'), USUAL)
