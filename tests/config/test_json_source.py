"""Every way in which a JSON file can be wrong has its own sentence, with line and column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config.json_source import DEEPEST, parse_json, read_json
from lora_trainer.config.problems import PresetError

WRONG = {
    "": "1:1 the file is empty; a preset is a JSON object: { ... }",
    "  \n ": "1:1 the file is empty; a preset is a JSON object: { ... }",
    '{"a": 1,}': "1:8 a comma before the closing }; delete it",
    '{"a": [1, 2,\n]}': "1:12 a comma before the closing ]; delete it",
    '{"a": true\n "b": 1}': "1:11 a comma is missing here",
    '{"a" 1}': '1:6 expected : after the key "a", found 1',
    "{a: 1}": "1:2 expected a key in double quotes, found a",
    "{'a': 1}": '1:2 found a single quote; JSON wants double quotes: "..."',
    "{\"a\": 'b'}": '1:7 found a single quote; JSON wants double quotes: "..."',
    '{"a": \u201cb\u201d}': '1:7 found a curly quote; JSON wants straight ones: "..."',
    '{\n // note\n"a": 1}': "2:2 found a comment; JSON has none, so delete it",
    '{"a": 1 # note\n}': "1:9 found a comment; JSON has none, so delete it",
    '{"a": 1} // note': "1:10 found a comment; JSON has none, so delete it",
    '{"a": 1}}': "1:9 text after the end of the preset; delete it, or the bracket before it",
    '{"a": [1}': "1:9 found } where ] must close the bracket before it",
    '{"a": {"b": [1, 2': '1:18 the file ends inside the [ of line 1; "," or "]" is missing',
    '{\n"a":': "2:5 the file ends inside the { of line 1; a value is missing",
    '{"a": 1, ': '1:10 the file ends inside the { of line 1; a key or "}" is missing',
    '{"a': '1:2 found text that is never closed with "',
    '{"a": "x\ny"}': '1:9 found a line break or tab inside the text; close it with " on the same line, '
    "or write \\n or \\t",
    '{"a": "C:\\models"}': '1:10 found a single backslash; write it twice ("C:\\\\models") or use / instead',
    '{"a": "\\ud83d"}': "1:7 found half of a two-part \\u character; write the character itself",
    '{"a": True}': "1:7 found True; JSON writes true",
    '{"a": None}': "1:7 found None; JSON writes null",
    '{"a": NaN}': "1:7 found NaN, which is no number; write one",
    '{"a": -Infinity}': "1:7 found -Infinity, which is no number; write one",
    '{"a": 1e999}': "1:7 found 1e999, which is too large for a number",
    '{"a": 01}': "1:7 found 01, which is no JSON number (write 5, -1, 0.5 or 1e-4)",
    '{"a": .5}': "1:7 found .5, which is no JSON number (write 5, -1, 0.5 or 1e-4)",
    '{"a": ' + "9" * 41 + "}": "1:7 found a number of more than 40 characters",
    '{"a": yes}': '1:7 found yes; text goes in double quotes: "..."',
    "[" * (DEEPEST + 1): f"1:{DEEPEST + 1} found brackets nested more than {DEEPEST} deep",
}

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), WRONG.items())
def test_a_wrong_text_is_named_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(PresetError) as caught:
        parse_json("mine.json", text)
    assert caught.value.problems == (f"mine.json:{problem}",)


def test_every_duplicate_is_reported() -> None:
    with pytest.raises(PresetError) as caught:
        parse_json("mine.json", '{"a": 1,\n "b": {"c": 1, "c": 2},\n "a": 3}')
    assert caught.value.problems == (
        "mine.json:2:16 c: given twice, first in line 2; keep one of the two",
        "mine.json:3:2 a: given twice, first in line 1; keep one of the two",
    )


@given(JSON_VALUES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_what_json_writes_is_read_back(value: object, indent: int | str | None, ascii_only: bool) -> None:
    assert parse_json("mine.json", json.dumps(value, indent=indent, ensure_ascii=ascii_only)).value == value


@given(JSON_VALUES, st.data())
def test_a_truncated_text_is_read_or_refused(value: object, data: st.DataObject) -> None:
    text = json.dumps({"a": value})
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(PresetError, match=r"^mine\.json:1:\d+ "):
        parse_json("mine.json", text[:cut])


def test_places_of_nested_keys_and_values() -> None:
    source = parse_json("mine.json", '{\n  "network_g": {\n    "scales": [1,\n      2]\n  }\n}')
    assert source.key_place(("network_g", "scales")) == "mine.json:3:5"
    assert source.value_place(("network_g", "scales", 1)) == "mine.json:4:7"
    assert source.value_place(()) == "mine.json:1:1"


def test_a_byte_order_mark_and_windows_line_ends_shift_nothing(tmp_path: Path) -> None:
    path = tmp_path / "voreinstellung für mich.json"
    path.write_bytes(b'\xef\xbb\xbf{\r\n  "a": "\xc3\xbc"\r\n}')
    source = read_json(path)
    assert source.value == {"a": "ü"}
    assert source.value_place(("a",)) == f"{path}:2:8"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(b'{\n "a": "\xc3\xbc\xff"}')
    assert _problem(path) == f"{path}:2:9 the file is not UTF-8 from here on; save it as UTF-8"
    path.write_text("{}", encoding="utf-16")
    assert _problem(path) == f"{path}:1:1 the file is UTF-16; save it as UTF-8"


def test_a_path_that_holds_no_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}", encoding="utf-8")
    missing = tmp_path / "mien.json"
    assert _problem(tmp_path) == f"{tmp_path}: this is a folder; name the .json file in it"
    assert _problem(missing) == f"{missing}: there is no such file; did you mean {tmp_path / 'mine.json'}?"
    checkpoint = tmp_path / "model.safetensors"
    with checkpoint.open("wb") as file:
        file.truncate(5 * 2**20)
    assert _problem(checkpoint) == f"{checkpoint}: more than 4 MB, which is no preset; name a .json file"


def _problem(path: Path) -> str:
    with pytest.raises(PresetError) as caught:
        read_json(path)
    (problem,) = caught.value.problems
    return problem
