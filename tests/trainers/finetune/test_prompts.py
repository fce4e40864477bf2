"""EveryDream2's files of prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import Refusal
from lora_trainer.trainers.diffusion.sample_prompts import SamplePrompt
from lora_trainer.trainers.finetune.prompts import PromptFile, Situation, read_prompt_file

HERE = Situation(seed=555, resolution=512, captions=("a cat", "a dog"))


def read(tmp_path: Path, root: Any, situation: Situation = HERE) -> PromptFile:
    path = tmp_path / "prompts.json"
    path.write_text(root if isinstance(root, str) else json.dumps(root), encoding="utf-8")
    return read_prompt_file(path, situation)


def test_lines_of_a_text_file_are_drawn_with_three_guidances_and_the_runs_seed(tmp_path: Path) -> None:
    path = tmp_path / "sample_prompts.txt"
    path.write_text("\ufeffa cat\n\n# not this\na dog, running\n", encoding="utf-8")
    found = read_prompt_file(path, HERE)
    assert [(prompt.text, prompt.guidance) for prompt in found.prompts] == [
        ("a cat", 7), ("a cat", 4), ("a cat", 1.01), ("a dog, running", 7), ("a dog, running", 4),
        ("a dog, running", 1.01),
    ]  # fmt: skip
    assert {prompt.seed for prompt in found.prompts} == {555}
    assert found.prompts[0] == SamplePrompt("a cat", "", 512, 512, 555, 30, 7.0, "ddim")
    path.write_text("", encoding="utf-8")
    assert read_prompt_file(path, HERE).prompts[0].text in HERE.captions


def test_a_json_file_has_settings_and_samples(tmp_path: Path) -> None:
    root = {
        "batch_size": 3, "seed": 7, "resolution": 640, "cfgs": [5], "scheduler": "dpm++", "num_inference_steps": 12,
        "show_progress_bars": True, "generate_pretrain_samples": True, "generate_samples_every_n_steps": 40,
        "samples": [
            {"prompt": "a cat", "negative_prompt": "bad"},
            {"prompt": "wide", "size": [768, 320], "seed": 3},
            {"prompt": "tall", "aspect_ratio": 0.66},
            {"random_caption": True, "seed": -1},
        ],
    }  # fmt: skip
    found = read(tmp_path, root)
    assert (found.before_training, found.every_n_steps) == (True, 40)
    cat, wide, tall, any_caption = found.prompts
    assert cat == SamplePrompt("a cat", "bad", 640, 640, 7, 12, 5.0, "dpmsolver++")
    assert (wide.width_px, wide.height_px, wide.seed) == (768, 320, 3)
    assert tall.width_px / tall.height_px == pytest.approx(0.66, abs=0.07)
    assert any_caption.text in HERE.captions
    assert any_caption.seed == 555 + 4
    assert read(tmp_path, root) == found
    assert found.notes == (
        f"{tmp_path / 'prompts.json'}: batch_size: without effect: previews are drawn one by one",
        f"{tmp_path / 'prompts.json'}: show_progress_bars: without effect: the console shows them",
    )


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        ("{", ":1:2: is not JSON"),
        ([], "must hold an object"),
        ({"sample": []}, "sample: unknown key; did you mean samples?"),
        ({"scheduler": "dimm"}, "scheduler 'dimm': unknown sampler; did you mean ddim?"),
        ({"cfgs": []}, "cfgs []: write a list of numbers from 0 to 1000"),
        ({"num_inference_steps": 0}, "write a whole number from 1 to 1000"),
        ({"samples": [{"prompt": "a", "size": [32, 64]}]}, "sample 1: a side has from 64 to 8192 pixels"),
        ({"samples": [{"prompt": "a"}, {"promt": "a"}]}, "sample 2: promt: unknown key; did you mean prompt?"),
        ({"samples": [{"prompt": "a", "seed": "x"}]}, "sample 1: not a number"),
        ({"samples": [{"prompt": "a", "aspect_ratio": 0}]}, "aspect_ratio is width / height"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, root: Any, problem: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(tmp_path, root)
    (found,) = caught.value.problems
    assert found.startswith(f"sample_prompts: {tmp_path / 'prompts.json'}")
    assert problem in found


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"none\.txt: cannot be read"):
        read_prompt_file(tmp_path / "none.txt", HERE)
    with pytest.raises(Refusal, match=r"write the path of a \.txt or \.json file"):
        read_prompt_file(Path("a cat"), HERE)
