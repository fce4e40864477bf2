"""No key is read and does nothing: each is used outside the configuration, or says why it has no effect."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import lora_trainer
from lora_trainer.config.common import CommonPreset
from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.config.gan import GanPreset
from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.restoration import RestorationPreset
from lora_trainer.config.setting import Key, keys_of
from lora_trainer.data.captions import CaptionSettings
from lora_trainer.data.degradation import SETTINGS
from lora_trainer.models.kohya_metadata import MODELSPEC_SETTINGS
from lora_trainer.trainers.lora.network import BLOCK_ARGUMENTS, KINDS

PACKAGE = Path(lora_trainer.__file__).parent

# Keys that are taken by their name from a table
FROM_TABLES = {
    *(each.name for each in fields(CaptionSettings)), *SETTINGS, *BLOCK_ARGUMENTS, *MODELSPEC_SETTINGS.values(),
    *(name for _, options in KINDS.values() for name in options),
}  # fmt: skip
# Keys whose effect is in reading the preset itself, or in the file's metadata
ELSEWHERE = {
    "trainer": "chooses the preset's class",
    "about": "is for people",
    "$schema": "is for editors",
    "additional_parameters": "becomes other keys",
    "training_comment": "is metadata",
    "metadata_title": "is metadata",
    "optimizer_config": "becomes other keys",
    "validation_config": "becomes other keys",
    "project_name": "becomes output_dir and output_name",
    "lowvram": "becomes other keys",
    "outdir": "becomes output_dir",
    "desc": "becomes output_dir",
    "gpus": "is told beside the number of processes",
    "vgg": "is taken by the network that a metric names",
}
PRESETS: dict[str, type[CommonPreset]] = {
    "lora": LoraPreset,
    "finetune": FinetunePreset,
    "gan": GanPreset,
    "restoration": RestorationPreset,
}
OTHERS = ("lora", "finetune", "super_resolution", "gan", "restoration")  # whose folders are named after them
KEYS = [(name, key) for name, preset in PRESETS.items() for key in keys_of(preset).values()]


def attributes_of(tree: ast.AST, owner: str) -> Iterator[str]:
    """`c` of `owner.c` and `b.owner.c`, where it is read."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = getattr(node.value, "id", getattr(node.value, "attr", ""))
            if name == owner:
                yield node.attr


def read_by(trainer: str) -> set[str]:
    """What of a preset is read outside of `config`, through its properties too."""
    found: set[str] = set()
    others = [other for other in OTHERS if other != trainer]
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name not in ("config", *others):
            found |= set(attributes_of(ast.parse(path.read_text(encoding="utf-8")), "preset"))
    tree = ast.parse((PACKAGE / "config" / f"{trainer}.py").read_text(encoding="utf-8"))
    through = {
        node.name: set(attributes_of(node, "self")) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    }
    while more := {inner for name in found & set(through) for inner in through[name]} - found:
        found |= more
    return found


@pytest.fixture(scope="module")
def read() -> dict[str, set[str]]:
    return {name: read_by(name) for name in PRESETS}


@pytest.mark.parametrize(("trainer", "key"), KEYS, ids=lambda part: getattr(part, "name", part))
def test_a_key_is_read_or_says_why_not(trainer: str, key: Key, read: dict[str, set[str]]) -> None:
    if key.effect.kind == "none":
        assert len(key.effect.reason) > 10
        assert key.field not in read[trainer]
    elif key.effect.kind == "real":  # what is not supported yet is refused
        assert key.field in read[trainer] | FROM_TABLES or key.name in ELSEWHERE


def test_a_new_key_that_nothing_reads_would_be_found(read: dict[str, set[str]]) -> None:
    assert "network_dim" in read["lora"]
    assert "unet_lr" in read["lora"]  # through unet_rate
    assert not read["lora"] & {"no_such_key", "model_list", "num_machines", "cond_dropout"}
    assert {"cond_dropout", "save_every_n_epochs", "ema_strength_target"} <= read["finetune"]
    assert not read["finetune"] & {"network_dim", "gpuid", "notebook"}
