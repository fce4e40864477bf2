"""What goes into files that are given away has no folder of the person's computer and no secret in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lora_trainer.config.public import public_values
from lora_trainer.config.reader import load_preset

WritePreset = Callable[..., Path]


def test_neither_folders_nor_secrets(write_preset: WritePreset) -> None:
    preset = load_preset(write_preset(logging_dir="/home/käthe/logs", wandb_api_key="abc", vae="C:\\models\\b.vae.pt"))
    values = public_values(preset.preset)
    assert (values["logging_dir"], values["vae"]) == ("logs", "b.vae.pt")
    assert "abc" not in str(values)
    assert "käthe" not in str(values)


def test_nor_folders_in_lists_and_sections(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(
        '{"trainer": "finetune", "resume_ckpt": "a.safetensors", "data_root": "b", "project_name": "c",'
        ' "extra_manual_datasets": {"eyes": "D:\\\\fotos\\\\käthe", "hands": "/home/someone/h", "feet": "my/feet"}}',
        encoding="utf-8",
    )
    values = public_values(load_preset(path).preset)
    assert values["extra_manual_datasets"] == {"eyes": "käthe", "hands": "h", "feet": "my/feet"}
