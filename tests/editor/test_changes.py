"""One value is changed and every other byte stays: order, indentation, spelling of numbers, line ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_trainer.config.json_source import decoded, parse_json
from lora_trainer.config.problems import PresetError
from lora_trainer.editor.changes import append, key_before, put, remove, rename
from tests.conftest import PRESETS

NAMES = st.text('abc"\\ü,:{[ \n\U0001f600', min_size=1, max_size=5)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(-1e3, 1e3)
    | st.text('a"\\,}]ü\n', max_size=5)
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=5
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=6)
LAYOUTS = st.sampled_from(
    [
        {"indent": 2},
        {"indent": None},
        {"indent": "\t"},
        {"indent": 0},
        {"indent": None, "separators": (",", ":")},
        {"indent": 1, "separators": (" ,", " : "), "ensure_ascii": False},
    ]
)


def texts(value: object, layout: dict[str, object], windows: bool) -> str:
    text = json.dumps(value, **layout)  # type: ignore[arg-type]
    return f"\n {text} \n".replace("\n", "\r\n") if windows else text


@given(OBJECTS, LAYOUTS, st.booleans(), NAMES, VALUES)
@settings(max_examples=150, deadline=None)
def test_a_value_is_put_and_everything_else_stays(
    keys: dict[str, object], layout: dict[str, object], windows: bool, name: str, value: object
) -> None:
    text = texts(keys, layout, windows)
    written = json.dumps(value)
    after = put(text, (name,), written, sorted(keys))
    found = json.loads(after)
    assert found == {**keys, name: value}
    assert [key for key in found if key != name] == [key for key in keys if key != name]
    if name in keys:
        before = parse_json("", text)
        start, end = before.values[name,], before.ends[name,]
        assert after == text[:start] + written + text[end:]
        assert put(after, (name,), text[start:end]) == text
    elif keys:
        assert remove(after, (name,)) == text
        assert ("\r\n" in after.replace(written, "")) is windows or "\n" not in text


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=6), LAYOUTS, st.data())
@settings(max_examples=150, deadline=None)
def test_a_key_is_removed_or_renamed_and_everything_else_stays(
    keys: dict[str, object], layout: dict[str, object], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(keys)))
    text = texts(keys, layout, windows=False)
    left = remove(text, (name,))
    assert json.loads(left) == {key: value for key, value in keys.items() if key != name}
    kept = iter(text)
    assert all(character in kept for character in left)  # nothing but what is gone differs
    renamed = rename(text, (name,), "another name")
    assert list(json.loads(renamed)) == ["another name" if key == name else key for key in keys]
    assert rename(renamed, ("another name",), name).count("\n") == text.count("\n")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_shipped_preset_is_the_same_after_a_change_and_back(path: Path) -> None:
    text = decoded(path, path.read_bytes())
    source = parse_json(path.name, text)
    for place in [each for each in source.values if len(each) == 1]:
        written = text[source.values[place] : source.ends[place]]
        changed = put(text, place, '["other"]')
        assert changed.count("\n") == text.count("\n") - written.count("\n")
        assert put(changed, place, written) == text
    new = put(text, ("a_key_that_is_new",), "1e-4", ())
    assert remove(new, ("a_key_that_is_new",)) == text
    assert new.count("\n") == text.count("\n") + 1


def test_numbers_keep_their_spelling() -> None:
    text = '{"a": 1e-4, "b": 0.10, "c": [1.50, 2e0]}'
    assert put(text, ("b",), "5E-05") == '{"a": 1e-4, "b": 5E-05, "c": [1.50, 2e0]}'
    assert put(text, ("c", 1), " 3.0 ") == '{"a": 1e-4, "b": 0.10, "c": [1.50, 3.0]}'


ORDER = ("trainer", "about", "output_dir", "seed", "epoch", "stages")


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        ('{\n    "about": 0,\n    "epoch": 3\n}\n', "seed", '{\n    "about": 0,\n    "seed": 1,\n    "epoch": 3\n}\n'),
        ('{\r\n\t"epoch": 3\r\n}', "seed", '{\r\n\t"seed": 1,\r\n\t"epoch": 3\r\n}'),
        ('{"trainer": "gan", "epoch": 3}', "about", '{"trainer": "gan", "about": 1, "epoch": 3}'),
        ('{"trainer":"gan","epoch":3}', "stages", '{"trainer":"gan","epoch":3,"stages":1}'),
        ('{"seed": 0,\n "stages": [\n  {}\n ]\n}', "epoch", '{"seed": 0, "epoch": 1,\n "stages": [\n  {}\n ]\n}'),
        ("{}", "seed", '{\n  "seed": 1\n}'),
        ("{ \r\n}\r\n", "seed", '{\r\n  "seed": 1\r\n}\r\n'),
        ('{\n "b": 0,\n "d": 0,\n "e": 0\n}', "c", '{\n "b": 0,\n "c": 1,\n "d": 0,\n "e": 0\n}'),
        ('{\n "b": 0,\n "d": 0,\n "e": 0\n}', "a", '{\n "a": 1,\n "b": 0,\n "d": 0,\n "e": 0\n}'),
        ('{\n "zeta": 0,\n "alpha": 0\n}', "mu", '{\n "zeta": 0,\n "alpha": 0,\n "mu": 1\n}'),
        ('{\n\n  "about" : 0 ,\n\n  "epoch" : 3\n}', "seed", '{\n\n  "about" : 0,\n  "seed" : 1 ,\n\n  "epoch" : 3\n}'),
    ],
)  # fmt: skip
def test_a_new_key_stands_where_it_belongs(before: str, key: str, after: str) -> None:
    assert put(before, (key,), "1", ORDER) == after


def test_a_key_inside_an_object_and_a_stage() -> None:
    text = '{\n  "stages": [\n    {"stage": "a"},\n    {\n      "stage": "b"\n    }\n  ]\n}'
    one = put(text, ("stages", 0, "scale"), "2", ("stage", "scale"))
    assert one == text.replace('{"stage": "a"}', '{"stage": "a", "scale": 2}')
    two = put(text, ("stages", 1, "scale"), "2", ("stage", "scale"))
    assert two == text.replace('"stage": "b"\n', '"stage": "b",\n      "scale": 2\n')
    three = append(text, ("stages",), '{"stage": "c"}')
    assert three == text.replace("    }\n  ]", '    },\n    {"stage": "c"}\n  ]')
    assert remove(three, ("stages", 2)) == text


def test_what_is_refused() -> None:
    with pytest.raises(PresetError, match="the value:1:3 a comma before the closing"):
        put("{}", ("a",), "[1,]")
    with pytest.raises(PresetError, match="the value:1:3 text after the end"):
        put("{}", ("a",), "1 2")
    for missing in (("a", "b"), ("list", 5)):
        with pytest.raises(KeyError):
            put('{"a": 1, "list": []}', missing, "1")
    with pytest.raises(KeyError):
        remove("{}", ("a",))
    with pytest.raises(KeyError):
        rename('{"a": 1, "b": 2}', ("a",), "b")
    with pytest.raises(KeyError):
        append('{"stages": []}', ("stages",), "1")


def test_the_place_of_a_key_that_no_order_has_is_the_end() -> None:
    assert key_before(["z", "a"], "unheard", ["a", "z"]) == "a"
    assert key_before(["about", "z"], "trainer", ["trainer", "about"]) is None
