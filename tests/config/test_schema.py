"""The committed schema is current, and agrees with the reader about what may be written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.schema import json_schema, schema_file, schema_text
from lora_trainer.config.trainers import TRAINERS

Problems = Callable[..., list[str]]
ROOT = Path(__file__).resolve().parents[2]
TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,), "integer": (int,), "number": (int, float), "string": (str,), "array": (list,),
    "null": (type(None),),
}  # fmt: skip


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_committed_schema_is_current(trainer: str) -> None:
    assert schema_file(trainer).read_text(encoding="utf-8") == schema_text(trainer)


def test_every_key_has_a_title_a_description_and_a_default() -> None:
    for name, each in _properties().items():
        assert each["description"], name
        assert each.get("deprecated") or {"title", "default"} <= set(each), name


def test_the_published_preset_agrees_with_the_schema() -> None:
    keys = json.loads((ROOT / "presets" / "pdxl.json").read_text(encoding="utf-8"))
    assert [name for name, value in keys.items() if not _fits(_properties()[name], value)] == []
    assert set(json_schema("lora")["required"]) == {
        "pretrained_model_name_or_path",
        "output_dir",
        "output_name",
    }  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("key", "value", "legal"),
    [
        ("network_dim", 4, True),
        ("network_dim", "4.0", True),
        ("network_dim", "", True),
        ("network_dim", 0, False),
        ("network_dim", "four", False),
        ("noise_offset", "1e-2", True),
        ("noise_offset", 1.5, False),
        ("bucket_reso_steps", 1, True),
        ("bucket_reso_steps", 20, False),
        ("sdxl", "True", True),
        ("sdxl", "yes", False),
        ("xformers", False, True),
        ("max_token_length", "150", True),
        ("max_token_length", 100, False),
        ("optimizer", "Prodigy", True),
        ("optimizer", "DAdaptAdam", True),
        ("optimizer", "torch.optim.NAdam", True),
        ("optimizer", "AdamX", False),
        ("LoRA_type", "LoCon", True),
        ("LoRA_type", "LoCom", False),
        ("max_resolution", "1024,768", True),
        ("max_resolution", "1024x768", False),
        ("optimizer_args", ["weight_decay=0.1"], True),
        ("output_name", 5, False),
    ],
)
def test_the_schema_and_the_reader_agree(problems: Problems, key: str, value: object, legal: bool) -> None:
    assert _fits(_properties()[key], value) is legal
    assert (problems(**{key: value}) == []) is legal


def _properties() -> dict[str, dict[str, Any]]:
    properties = json_schema("lora")["properties"]
    assert isinstance(properties, dict)
    return properties


def _fits(schema: dict[str, Any], value: Any) -> bool:
    """The few words of JSON Schema that ours uses."""
    if "anyOf" in schema:
        return any(_fits(each, value) for each in schema["anyOf"])
    if "enum" in schema:
        return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in schema["enum"])
    kinds = tuple(kind for name in schema.get("type", TYPES) for kind in TYPES[name])
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return False
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        in_range = schema.get("minimum", value) <= value <= schema.get("maximum", value)
        return in_range and value % schema.get("multipleOf", 1 if isinstance(value, int) else value or 1) == 0
    return True
