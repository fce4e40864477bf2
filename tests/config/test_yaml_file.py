"""YAML files are read without surprises."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer.config.yaml_file import read_yaml
from lora_trainer.errors import Refusal


def test_keys_and_values(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("\ufeffmain_prompt: Käse\ntags: [a, b]\n", encoding="utf-8")
    assert read_yaml(file) == {"main_prompt": "Käse", "tags": ["a", "b"]}
    file.write_text("", encoding="utf-8")
    assert read_yaml(file) == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: b: c", ":1:5: is not YAML"),
        (b"- a", "must hold keys and values"),
        (b"a: \xff", "is not UTF-8 (byte 3)"),
        (b"a: !!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(Refusal, match=r"a\.yaml") as caught:
        read_yaml(file)
    assert problem in str(caught.value)
