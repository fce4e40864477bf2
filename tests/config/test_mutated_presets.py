"""Whatever is done to a preset, the answer is a preset or sentences with a place, never a traceback or jargon."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import Loaded, load_preset
from lora_trainer.config.schema import json_schema
from lora_trainer.config.setting import keys_of

PDXL = Path(__file__).resolve().parents[2] / "presets" / "pdxl.json"
REQUIRED = ("pretrained_model_name_or_path", "train_data_dir", "output_dir", "output_name")
KEYS = {**json.loads(PDXL.read_text(encoding="utf-8")), **dict.fromkeys(REQUIRED, "some name")}
JARGON = re.compile(
    r"traceback|pydantic|validation error|input should|input_type=|<class|valueerror|__\w+__", re.IGNORECASE
)

KNOWN = set(json_schema("lora")["properties"])  # type: ignore[call-overload]
NAMES = st.sampled_from(sorted(keys_of(LoraPreset)))
WORDS = st.text("abcfu01., -/\\\"'\n\u00e4", max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2000) | st.integers(10**30, 10**39) | st.floats(-2, 2) | WORDS
    | st.sampled_from(["", "...", "0", "75", "4.0", "nan", "1e400", "1024,1024", "True", "Flux1", "LoCon", "constant"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated presets äöü") / "mine.json"


def _answer(path: Path, text: str, overrides: list[str]) -> Loaded | PresetError:
    path.write_text(text, encoding="utf-8", newline="\n")
    try:
        return load_preset(path, overrides)
    except PresetError as error:
        assert error.problems
        for problem in error.problems:
            assert re.match(rf"{re.escape(str(path))}:[1-9]\d*:[1-9]\d* \S|--set \S", problem), problem
            assert not JARGON.search(problem), problem
            assert "\n" not in problem
        assert error.__cause__ is None
        return error


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=6), st.sets(NAMES, max_size=4))
@settings(max_examples=150, deadline=None)
def test_changed_and_dropped_keys(path: Path, changed: dict[str, object], dropped: set[str]) -> None:
    keys = {key: value for key, value in {**KEYS, **changed}.items() if key not in dropped}
    answer = _answer(path, json.dumps(keys, indent=1), [])
    if isinstance(answer, Loaded):
        assert set(REQUIRED) <= set(answer.given)
        assert json.loads(json.dumps(answer.steps_fingerprint())) == answer.steps_fingerprint()


@given(st.sampled_from(sorted(KEYS)), st.data())
@settings(max_examples=50, deadline=None)
def test_a_key_with_a_typing_error_is_refused_at_its_place(path: Path, key: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(key) - 1))
    typed = data.draw(st.sampled_from([key[:at] + key[at + 1 :], key[:at] + "zq" + key[at:], key + key[at]]))
    keys = {typed if name == key else name: value for name, value in KEYS.items()}
    answer = _answer(path, json.dumps(keys, indent=1), [])
    if typed not in KNOWN:
        assert isinstance(answer, PresetError)
        line = list(keys).index(typed) + 2
        assert any(problem.startswith(f"{path}:{line}:2 {typed}: unknown key") for problem in answer.problems)


@given(st.lists(st.sampled_from(sorted(KEYS)), min_size=2, max_size=2, unique=True))
@settings(max_examples=60, deadline=None)
def test_two_values_that_changed_places(path: Path, names: list[str]) -> None:
    _answer(path, json.dumps({**KEYS, names[0]: KEYS[names[1]], names[1]: KEYS[names[0]]}, indent=1), [])


@given(st.integers(0, 2**31), WORDS, st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_text_that_was_cut_or_overwritten(path: Path, where: int, inserted: str, removed: int) -> None:
    text = json.dumps(KEYS, indent=1)
    at = where % len(text)
    assert isinstance(_answer(path, text[:at], []), PresetError)
    _answer(path, text[:at] + inserted + text[at + removed :], [])


@given(NAMES, VALUES | WORDS)
@settings(max_examples=80, deadline=None)
def test_overrides(path: Path, key: str, value: object) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    answer = _answer(path, json.dumps(KEYS), [f"{key}={text}"])
    if isinstance(answer, PresetError):
        assert any(f"--set {key}=" in problem or key in problem for problem in answer.problems)
