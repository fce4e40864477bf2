"""What is wrong with optimizers and files is said before a model is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.config.reader import Loaded, load_preset
from lora_trainer.errors import Refusal
from lora_trainer.trainers.finetune.checks import (
    base_model_path,
    check_model_folder,
    finetune_problems,
    first_average,
    prompt_file,
)

Load = Callable[..., Loaded]


@pytest.fixture
def load(tmp_path: Path) -> Load:

    def read(**keys: Any) -> Loaded:
        path = tmp_path / "preset.json"
        required = {"trainer": "finetune", "resume_ckpt": "base", "data_root": "input", "optimizer": "AdamW"}
        path.write_text(json.dumps({**required, **keys}, indent=1), encoding="utf-8")
        return load_preset(path)

    return read


def preset(**keys: Any) -> FinetunePreset:
    return FinetunePreset(**{"resume_ckpt": "base", "data_root": "input", **keys})


def test_options_that_an_optimizer_does_not_have_are_refused_where_they_stand(load: Load, tmp_path: Path) -> None:
    assert finetune_problems(load(optimizer_args="weight_decay=0.1")) == []
    (found,) = finetune_problems(load(optimizer_args="weigt_decay=0.1"))
    assert found.startswith(f"{tmp_path / 'preset.json'}:6:20 optimizer_args: ")
    assert "does not accept weigt_decay" in found
    (found,) = finetune_problems(load(text_encoder_optimizer="Lion", text_encoder_optimizer_args="eps=1"))
    assert "text_encoder_optimizer_args: " in found
    assert "Lion" in found
    (found,) = finetune_problems(load(optimizer="torch.optim.Nothing"))
    assert "optimizer: " in found
    assert finetune_problems(load(text_encoder_optimizer="no.Such", disable_textenc_training=True)) == []


@pytest.mark.parametrize("name", ["adamw", "lion", "dadapt_sgd", "prodigy", "adafactor", "sgd"])
def test_every_optimizer_takes_what_an_optimizer_json_always_has(load: Load, tmp_path: Path, name: str) -> None:
    base = {"optimizer": name, "betas": [0.9, 0.999], "epsilon": 1e-8, "weight_decay": 0.01}
    (tmp_path / "optimizer.json").write_text(json.dumps({"base": base}), encoding="utf-8")
    assert finetune_problems(load(optimizer="", optimizer_config="optimizer.json")) == []


def test_the_base_model_is_named_or_found(tmp_path: Path) -> None:
    assert base_model_path(preset(resume_ckpt="some/model.ckpt")) == Path("some/model.ckpt")
    for number, name in enumerate(("old", "new", "mine")):
        index = tmp_path / name / "ckpts" / "x" / "model_index.json"
        index.parent.mkdir(parents=True)
        index.write_text("{}", encoding="utf-8")
        os.utime(index, (number, number))
    mine = preset(resume_ckpt="findlast", logdir=str(tmp_path), output_dir=str(tmp_path / "mine"))
    assert base_model_path(mine) == tmp_path / "new" / "ckpts" / "x"


def test_previews_come_from_the_file(tmp_path: Path) -> None:
    assert prompt_file(preset(), 1).prompts == ()
    file = tmp_path / "p.txt"
    file.write_text("a cat\n", encoding="utf-8")
    found = prompt_file(preset(sample_prompts=str(file), resolution=640), 7).prompts
    assert [(each.text, each.width_px, each.seed) for each in found] == [("a cat", 640, 7)] * 3
    with pytest.raises(Refusal, match=r"no\.txt: there is no such file; put it beside the preset"):
        prompt_file(preset(sample_prompts="no.txt"), 1)


def test_of_the_folder_of_a_run_the_newest_model_is_taken(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for number, name in enumerate(("last-a-ep01-gs00001", "last-a-ep02-gs00002", "last-a-ep02-gs00002_ema")):
        index = run / "ckpts" / name / "model_index.json"
        index.parent.mkdir(parents=True)
        index.write_text("{}", encoding="utf-8")
        os.utime(index, (1000 + number, 1000 + number))
    assert base_model_path(preset(resume_ckpt=str(run))) == run / "ckpts" / "last-a-ep02-gs00002"


def test_the_first_average_is_named_or_found(tmp_path: Path) -> None:
    assert first_average(preset(ema_resume_model="x")) is None
    with pytest.raises(Refusal, match=r"ema_resume_model: no: there is no such file"):
        first_average(preset(ema_decay_rate=0.9, ema_resume_model="no"))
    keys = {"ema_decay_rate": 0.9, "ema_resume_model": "findlast", "logdir": str(tmp_path)}
    with pytest.raises(Refusal, match=r"ema_resume_model: there is no diffusers folder \*_ema below"):
        first_average(preset(**keys))
    for name in ("a", "a_ema", "b"):
        (tmp_path / "old" / name).mkdir(parents=True)
        (tmp_path / "old" / name / "model_index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(Refusal, match=r"ema_resume_model: .*a_ema.*: "):
        first_average(preset(**keys))


def test_a_folder_that_cannot_be_written_is_known_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(Refusal, match=r"save_ckpt_dir: .*file.sub: .*file is no folder; name another one"):
        check_model_folder(preset(save_ckpt_dir=str(tmp_path / "file" / "sub")))
    check_model_folder(preset(save_ckpt_dir=str(tmp_path / "file"), no_save_ckpt=True))
    wanted = tmp_path / "a" / "b"
    check_model_folder(preset(save_ckpt_dir=str(wanted)))
    assert not wanted.exists()
    check_model_folder(preset(save_ckpt_dir=str(wanted)), make=True)
    assert wanted.is_dir()
