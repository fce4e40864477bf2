"""The page says of a text what the command line says of the file, and each thing at its key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_trainer.__main__ import main
from lora_trainer.config.json_source import decoded, parse_json
from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import load_stages
from lora_trainer.config.setting import keys_of
from lora_trainer.config.trainers import TRAINERS
from lora_trainer.editor.answers import answer, path_at
from lora_trainer.editor.form import TRAINED, form
from tests.conftest import PRESETS

ROOT = Path(__file__).resolve().parents[2]

FLAT = """{
  "trainer": "super_resolution",
  "output_dir": "out",
  "output_name": "out",
  "scael": 2,
  "scale": "zwei",
  "network_g": {"type": "span"},
  "dataroot_gt": ["a"],
  "train": {"total_iter": 500, "ema_decay": 7},
  "val_freq": 10
}
"""
STAGES = """{
  "trainer": "super_resolution",
  "output_dir": "out",
  "output_name": "out",
  "network_g": {"type": "span"},
  "dataroot_gt": ["a"],
  "total_iter": 5,
  "val_freq": 10,
  "stages": [{"stage": "2x", "scale": 2}, {"stage": "4x", "scale": 4, "use_hfilp": true}]
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("presets ü")


def on_the_command_line(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["--preset", str(path), "--check"]) == 2
    return capsys.readouterr().err.splitlines()


def sentence(path: Path, problem: dict[str, Any]) -> str:
    """The problem without its column, which the page does not show."""
    return f"{path}:{problem['line']} {problem['text']}" if problem["line"] else problem["text"]


def without_column(path: Path, line: str) -> str:
    return str(path) + re.sub(r"^(:\d+):\d+ ", r"\1 ", line.removeprefix(str(path)))


@pytest.mark.parametrize(
    "text",
    [
        (ROOT / "presets" / "pdxl.json").read_text(encoding="utf-8"),
        FLAT,
        STAGES,
        "",
        "[1]",
        '{"a": 1,\n "a": 2, "b": nan}',
        '{"trainer": "gan",\n "cfg": stylegan2}',
        '{"trainer": "lroa"}',
        '{"trainer": "gan", "stages": [{}]}',
        '{"trainer": "super_resolution", "stages": [{"stage": "a"}, {"stage": "a"}], "output_dir": "o"}',
        '{"additional_parameters": "--noise_offset x --what", "cache_latents": true, "color_aug": true}',
        '{"sdxl": true, "flux1_checkbox": true, "output_name": "con"}',
    ],
)
def test_the_problems_are_those_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = tmp_path / "mein preset ü.json"
    path.write_text(text, encoding="utf-8", newline="")
    said: Any = answer(path, text)
    lines = on_the_command_line(path, capsys)
    assert [sentence(path, problem) for problem in said["problems"]] == [without_column(path, line) for line in lines]


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_of_every_shipped_preset_the_page_knows_what_the_reader_knows(path: Path) -> None:
    text = decoded(path, path.read_bytes())
    said: Any = answer(path, text)
    assert not said["broken"]
    try:
        stages = load_stages(path)
    except PresetError as error:
        assert len(said["problems"]) == len(error.problems)
        assert all('"..."' in text.splitlines()[problem["line"] - 1] for problem in said["problems"])
        return
    assert said["problems"] == []
    assert said["trainer"] == stages[0].preset.trainer
    remarks = [(each["text"], each["inert"]) for each in said["remarks"]]
    expected = []
    for loaded in stages:
        expected += [(note, False) for note in loaded.notes]
        expected += [(f"{key}: without effect: {reason}", True) for key, reason in loaded.inert.items()]
    assert remarks == expected
    shared = {each["name"]: each["raw"] for each in said["scopes"][0]["keys"]}
    assert {name: json.loads(raw) for name, raw in shared.items()} == json.loads(text)
    assert len(said["scopes"]) == (1 + len(stages) if stages[0].stage else 1)


NAMES = st.sampled_from(["seed", "stages", "trainer", "scael", "train", "additional_parameters", "output_name", "vae"])
WORDS = st.sampled_from(["", "...", "75", "gan", "x"])
INNER = st.sampled_from(["stage", "type", "lr"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2000) | st.floats(-2, 2) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(INNER, inner, max_size=2),
    max_leaves=4,
)


@given(
    st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), st.integers(0, 400), st.sampled_from(["", ",", "}", '"'])
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_written_the_page_says_what_the_reader_says(
    folder: Path, changed: dict[str, object], place: int, stray: str
) -> None:
    path = folder / "p.json"
    text = json.dumps({**json.loads(FLAT), **changed}, indent=1)
    text = text[:place] + stray + text[place:]
    path.write_text(text, encoding="utf-8", newline="")
    said: Any = answer(path, text)
    problems: tuple[str, ...] = ()
    try:
        load_stages(path)
    except PresetError as error:
        problems = error.problems
    assert [sentence(path, problem) for problem in said["problems"]] == [
        without_column(path, each) for each in problems
    ]
    assert said["broken"] or all(problem["key"] for problem in said["problems"])


def test_each_problem_stands_at_its_key(tmp_path: Path) -> None:
    said: Any = answer(tmp_path / "p.json", FLAT)
    assert {(each["key"], each["stage"], each["line"]) for each in said["problems"]} == {
        ("scael", -1, 5),
        ("scale", -1, 6),
        ("train", -1, 9),
    }
    assert said["unknown"] == {"scael": "scale"}
    given = {each["key"]: (each["by"], each["value"]) for each in said["elsewhere"]}
    assert given == {"total_iter": ("train.total_iter", "500"), "ema_decay": ("train.ema_decay", "7")}


def test_a_missing_key_is_told_at_its_own_row(tmp_path: Path) -> None:
    said: Any = answer(tmp_path / "p.json", '{"trainer": "lora"}')
    assert {each["key"] for each in said["problems"]} >= {"output_dir", "output_name", "pretrained_model_name_or_path"}
    assert all(each["line"] == 1 for each in said["problems"])


def test_stages_have_their_own_problems_and_remarks(tmp_path: Path) -> None:
    said: Any = answer(tmp_path / "p.json", STAGES)
    assert [each["name"] for each in said["scopes"]] == ["", "2x", "4x"]
    assert [(each["key"], each["stage"]) for each in said["problems"]] == [("use_hfilp", 1)]
    assert said["unknown"] == {"use_hfilp": "use_hflip"}
    follows = [each for each in said["elsewhere"] if each["key"] == "pretrain_network_g"]
    assert [(each["stage"], each["by"]) for each in follows] == [(1, "the stage before")]
    assert {each["stage"] for each in said["remarks"] if each["key"] == "val_freq"} == {0, 1}


def test_what_is_wrong_does_not_hide_the_remarks(tmp_path: Path) -> None:
    said: Any = answer(tmp_path / "pdxl.json", (ROOT / "presets" / "pdxl.json").read_text(encoding="utf-8"))
    assert len(said["problems"]) == 4
    assert {each["key"] for each in said["remarks"] if each["inert"]} >= {"dynamo_backend", "clip_skip"}


def test_the_default_is_known_in_every_spelling(tmp_path: Path) -> None:
    text = '{"max_resolution": "512, 512", "network_dim": "8", "sdxl": "False", "vae": null, "epoch": 2, "seed": "x"}'
    said: Any = answer(tmp_path / "p.json", text)
    default = {each["name"]: each["default"] for each in said["scopes"][0]["keys"]}
    assert default == {
        "max_resolution": True, "network_dim": True, "sdxl": True, "vae": True, "epoch": False, "seed": False,
    }  # fmt: skip


def test_secrets_are_not_told_again(tmp_path: Path) -> None:
    said: Any = answer(tmp_path / "p.json", '{"additional_parameters": "--wandb_api_key=geheim"}')
    assert "geheim" not in json.dumps({**said, "scopes": []})
    assert [each["value"] for each in said["elsewhere"] if each["key"] == "wandb_api_key"] == ["***"]


def test_a_place_is_found_as_deep_as_it_goes() -> None:
    source = parse_json("p", '{"a": 1,\n "b": {"c": [10,\n 20]}}')
    assert path_at(source, 1, 1) == ()
    assert path_at(source, 1, 2) == ("a",)
    assert path_at(source, 2, 2) == ("b",)
    assert path_at(source, 2, 8) == ("b", "c")
    assert path_at(source, 3, 2) == ("b", "c", 1)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_form_has_every_key_once_with_a_field_that_fits(trainer: str) -> None:
    made: Any = form(trainer)
    assert made["trained"] == TRAINED[trainer]
    keys = [key for group in made["groups"] for key in group["keys"]]
    assert sorted(key["name"] for key in keys) == sorted(keys_of(TRAINERS[trainer].preset))
    for key in keys:
        default = key["default"]
        if key["input"] == "switch":
            assert isinstance(default, bool)
        if key["input"] == "choice":
            assert default in key["choices"] or default == ""
        if key["input"] == "number":
            assert isinstance(default, (int, float))
        if key["input"] in ("lines", "numbers"):
            assert isinstance(default, list)
    assert all(group["about"] for group in made["groups"])
