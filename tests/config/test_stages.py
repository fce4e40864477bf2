"""Presets of several stages, and presets written in traiNNer-redux's sections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import Loaded, load_preset, load_stages
from lora_trainer.config.super_resolution import SuperResolutionPreset

STAGES: dict[str, Any] = {
    "trainer": "super_resolution",
    "output_dir": "out/über",
    "output_name": "span",
    "dataroot_gt": "hr",
    "network_g": {"type": "span"},
    "total_iter": 100,
    "stages": [
        {"stage": "2x", "scale": 2},
        {"stage": "4x", "scale": 4, "strict_load_g": False, "train": {"total_iter": 50}},
        {"stage": "gan", "save_checkpoint_format": "pth", "output_name": "best"},
    ],
}


def stages(folder: Path, *overrides: str, **changes: Any) -> tuple[Loaded, ...]:
    path = folder / "preset.json"
    path.write_text(json.dumps({**STAGES, **changes}, indent=1), encoding="utf-8")
    return load_stages(path, overrides)


def problem(folder: Path, **changes: Any) -> str:
    with pytest.raises(PresetError) as caught:
        stages(folder, **changes)
    return str(caught.value).replace(str(folder / "preset.json"), "").strip()


def preset(loaded: Loaded) -> SuperResolutionPreset:
    assert isinstance(loaded.preset, SuperResolutionPreset)
    return loaded.preset


def test_each_stage_has_its_folder_and_starts_from_the_one_before(tmp_path: Path) -> None:
    found = stages(tmp_path)
    assert [loaded.stage for loaded in found] == ["2x", "4x", "gan"]
    assert [loaded.follows for loaded in found] == [False, True, True]
    assert [each.preset.output_dir for each in found] == ["out/über/1_2x", "out/über/2_4x", "out/über/3_gan"]
    assert [each.preset.output_name for each in found] == ["span_2x", "span_4x", "best"]
    assert [preset(each).pretrain_network_g for each in found] == [
        "", "out/über/1_2x/span_2x.safetensors", "out/über/2_4x/span_4x.safetensors",
    ]  # fmt: skip
    assert [(preset(each).scale, preset(each).total_iter) for each in found] == [(2, 100), (4, 50), (4, 100)]


def test_a_stage_of_a_fine_tuning_starts_from_the_folder_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "preset.json"
    content = {
        "trainer": "finetune", "resume_ckpt": "small.json", "data_root": "in", "logdir": "out", "project_name": "small",
        "stages": [{"stage": "vae", "train_vae": True}, {"stage": "unet"}],
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")
    first, second = (loaded.preset for loaded in load_stages(path))
    assert isinstance(first, FinetunePreset) and isinstance(second, FinetunePreset)
    assert (first.resume_ckpt, first.output_dir, first.output_name) == ("small.json", "out/small/1_vae", "small_vae")
    assert (second.resume_ckpt, second.output_dir, second.train_vae) == ("out/small/1_vae", "out/small/2_unet", False)


def test_the_result_of_a_pth_stage_ends_in_pth(tmp_path: Path) -> None:
    assert preset(stages(tmp_path, save_checkpoint_format="pth")[1]).pretrain_network_g == "out/über/1_2x/span_2x.pth"


def test_an_override_wins_over_every_stage(tmp_path: Path) -> None:
    found = stages(tmp_path, "total_iter=7", "output_dir=else where", "network_g.norm=true")
    assert [preset(each).total_iter for each in found] == [7, 7, 7]
    assert found[2].preset.output_dir == "else where/3_gan"
    assert preset(found[0]).network_g.options == {"norm": True}


def test_a_stage_may_start_from_another_file_or_from_nothing(tmp_path: Path) -> None:
    second = {"stage": "4x", "pretrain_network_g": ""}
    found = stages(tmp_path, stages=[STAGES["stages"][0], second])
    assert preset(found[1]).pretrain_network_g == ""
    assert not found[1].follows


def test_a_preset_without_stages_is_one(tmp_path: Path) -> None:
    path = tmp_path / "preset.json"
    path.write_text(json.dumps({key: value for key, value in STAGES.items() if key != "stages"}), encoding="utf-8")
    (only,) = load_stages(path)
    assert (only.stage, only.follows, only.preset.output_dir) == ("", False, "out/über")
    assert load_preset(path).preset == only.preset


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"stages": []}, ':10:12 stages: found no list of stages; write [{"stage": "2x", ...}, ...]'),
        ({"stages": [{"scale": 2}]}, ':11:3 stages.0: a stage needs a name: "stage": "2x"'),
        ({"stages": ["2x"]}, ':11:3 stages.0: found "2x"; a stage is an object: {"stage": "2x", ...}'),
        (
            {"stages": [{"stage": "a"}, {"stage": "a"}]},
            ":15:13 stage: there is another stage a; give each its own name",
        ),
        (
            {"stages": [{"stage": "a", "output_dir": "b"}]},
            ":13:4 output_dir: belongs to the whole preset, not to a stage",
        ),
        ({"stages": [{"stage": "a", "scael": 2}]}, ":13:4 scael: unknown key; did you mean scale?"),
        ({"trainer": "lora"}, ":10:2 stages: this trainer has no stages; remove the key"),
    ],
)
def test_a_wrong_stage_is_named(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    assert problem(tmp_path, **changes) == text


SECTIONS: dict[str, Any] = {
    "trainer": "super_resolution",
    "output_dir": "out",
    "name": "4x_SPAN",
    "scale": 4,
    "use_amp": True,
    "amp_bf16": True,
    "num_gpu": "auto",
    "manual_seed": 1024,
    "datasets": {
        "train": {
            "name": "Train Dataset",
            "type": "PairedImageDataset",
            "dataroot_gt": ["a/hr", "a/hr2"],
            "dataroot_lq": ["a/lr", "a/lr2"],
            "io_backend": {"type": "disk"},
            "lq_size": 48,
            "batch_size_per_gpu": 8,
            "dataset_enlarge_ratio": "auto",
            "prefetch_mode": None,
        },
        "val": {"name": "Val", "type": "PairedImageDataset", "dataroot_gt": "v/hr", "io_backend": {"type": "disk"}},
    },
    "network_g": {"type": "SPAN", "norm": False},
    "path": {"resume_state": None, "strict_load_g": False},
    "train": {
        "ema_decay": 0.99,
        "optim_g": {"type": "AdamW", "lr": 2e-4, "betas": [0.9, 0.99]},
        "scheduler": {"type": "MultiStepLR", "milestones": [5, 10], "gamma": 0.5},
        "total_iter": 500000,
        "warmup_iter": -1,
        "pixel_opt": {"type": "L1Loss", "loss_weight": 0.5},
        "hsluv_opt": {"criterion": "charbonnier"},
    },
    "val": {"val_enabled": True, "val_freq": 1000, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}},
    "logger": {"print_freq": 100, "save_checkpoint_freq": 1000, "use_tb_logger": False, "wandb": {"project": None}},
    "dist_params": {"backend": "nccl", "port": 29500},
}


def test_the_sections_of_trainner_redux_are_flat_keys(tmp_path: Path) -> None:
    path = tmp_path / "preset.json"
    path.write_text(json.dumps(SECTIONS))
    loaded = load_preset(path)
    assert loaded.inert["dist_params"] == "the launcher decides: accelerate or torchrun"
    read = preset(loaded)
    assert (read.output_name, read.seed, read.log_every, read.log_with) == ("4x_SPAN", 1024, 100, "none")
    assert read.dataroot_gt == ("a/hr", "a/hr2")
    assert (read.val_dataroot_gt, read.val_dataroot_lq) == (("v/hr",), ())
    assert (read.lq_px, read.gt_px, read.io_backend, read.dataset_enlarge_ratio) == (48, 192, "disk", 0)
    assert read.number_format == "bf16"
    assert [loss.as_json() for loss in read.losses] == [
        {"type": "L1Loss", "loss_weight": 0.5},
        {"type": "hsluvloss", "criterion": "charbonnier"},
    ]
    assert read.metrics[0][1].options == {"crop_border": 4}
    assert read.scheduler.options["milestones"] == [5, 10]
    assert read.strict_load_g is False
    assert not read.network_d.type


def test_a_problem_in_a_section_has_its_place(tmp_path: Path) -> None:
    path = tmp_path / "preset.json"
    path.write_text('{"trainer": "super_resolution", "name": "a", "output_dir": "b",\n "datasets": {"train": {\n'
                    '  "lq_siz": 32}},\n "train": {"total_iter": 0}}')  # fmt: skip
    with pytest.raises(PresetError) as caught:
        load_preset(path)
    assert [text.removeprefix(str(path)) for text in caught.value.problems][2:] == [
        ":3:3 lq_siz: unknown key; did you mean lq_size?",
        ":4:26 total_iter: found 0; write a whole number from 1 upwards",
    ]


def test_an_options_place_is_inside_its_object(tmp_path: Path) -> None:
    path = tmp_path / "preset.json"
    path.write_text(json.dumps(SECTIONS, indent=1))
    loaded = load_preset(path)
    line = path.read_text().split("\n").index('  "norm": false') + 1
    assert loaded.wrong("no", "network_g", "norm").removeprefix(str(path)) == f":{line}:11 network_g.norm: no"
    assert (
        loaded.wrong("no", "network_g", "norm", as_key=True).removeprefix(str(path)) == f":{line}:3 network_g.norm: no"
    )
    assert loaded.wrong("no", "video_prob").removeprefix(str(path)) == ":1:1 video_prob: no"
