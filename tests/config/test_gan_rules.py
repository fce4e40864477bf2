"""What a GAN's keys say to each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config import reader
from lora_trainer.config.gan import GanPreset
from lora_trainer.config.gan_rules import GAN_RULES
from lora_trainer.config.gan_sections import unfold_gan
from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import Loaded, load_preset
from lora_trainer.config.trainers import TRAINERS, Trainer

GAN = Trainer(GanPreset, GAN_RULES, unfold=unfold_gan)

Load = Callable[..., Loaded]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.setattr(reader, "TRAINERS", {**TRAINERS, "gan": GAN})

    def read(**keys: Any) -> Loaded:
        path = tmp_path / "preset.json"
        required = {"trainer": "gan", "cfg": "stylegan2", "data": "data", "batch": 32, "gamma": 1, "output_dir": "out"}
        path.write_text(json.dumps({**required, **keys}), encoding="utf-8")
        return load_preset(path)

    return read


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"resume": "https://api.ngc.nvidia.com/a.pkl"}, "resume: nothing is downloaded; save the snapshot"),
        (
            {"metrics": "fid50k_full", "inception": "HTTPS://a/b.pt"},
            "inception: nothing is downloaded; save the network",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(load: Load, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(PresetError) as caught:
        load(**keys)
    (found,) = caught.value.problems
    assert problem in found
    assert "preset.json:1:" in found


@pytest.mark.parametrize(
    ("keys", "idle"),
    [
        ({"aug": "noaug", "p": 0.1, "target": 0.5}, {"p", "target"}),
        ({"aug": "fixed", "p": 0.1, "target": 0.5}, {"target"}),
        ({"p": 0.1, "target": 0.5}, {"p"}),
        ({"cfg": "r3gan", "map_depth": 2, "mbstd_group": 8}, {"map_depth", "mbstd_group"}),
        ({"cfg": "r3gan", "decay_kimg": 100}, set()),
        ({"decay_kimg": 100}, {"decay_kimg"}),
        ({"cfg": "stylegan3-t", "pl_weight": 2, "pl_start_kimg": 1}, {"pl_weight", "pl_start_kimg"}),
        ({"pl_weight": 1, "pl_start_kimg": 1}, set()),
        ({"pl_weight": 0, "pl_start_kimg": 1}, {"pl_start_kimg"}),
        ({"pl_start_kimg": 30000}, {"pl_start_kimg"}),
        ({"fp32": True, "mixed_precision": "bf16"}, {"mixed_precision"}),
        ({"fused_filtered_lrelu": True}, {"fused_filtered_lrelu"}),
        ({"cfg": "stylegan3-t", "fused_filtered_lrelu": True}, set()),
        ({"cfg": "stylegan3-r", "fused_filtered_lrelu": True, "fp32": True}, {"fused_filtered_lrelu"}),
        ({"outdir": "runs", "desc": "x"}, {"outdir", "desc"}),
        ({"output_dir": "runs/stylegan2-data-batch32-gamma1", "outdir": "runs"}, set()),
        ({"metrics": "none", "inception": "i", "vgg": "v", "metric_images": 9, "metric_cache": "c"},
         {"inception", "vgg", "metric_images", "metric_cache"}),
        ({"inception": "i", "vgg": "v", "metric_images": 9}, {"vgg"}),
        ({"metrics": "pr50k3_full", "inception": "i", "vgg": "v"}, {"inception"}),
        ({"log_with": "none", "logging_dir": "x"}, {"logging_dir"}),
    ],
)  # fmt: skip
def test_a_key_that_does_nothing_is_told(load: Load, keys: dict[str, Any], idle: set[str]) -> None:
    assert set(load(**keys).inert) == idle


@pytest.mark.parametrize(
    ("keys", "note"),
    [
        (
            {"gamma": 0},
            "gamma: 0 leaves R1 out; nothing holds the discriminator then, and training tends to fail",
        ),
        ({"freezed": 10}, "freezed: the frozen layers stay random, as resume gives no snapshot"),
        ({}, "metrics: none are measured; fid50k_full, the usual one, needs a network: give its file in inception"),
    ],
)
def test_what_a_person_would_want_to_know_is_noted(load: Load, keys: dict[str, Any], note: str) -> None:
    assert note in load(**keys).notes


def test_a_usual_preset_has_nothing_to_tell(load: Load) -> None:
    loaded = load(inception="i.pt", mirror=True, batch_gpu=4, gpus=8, resume="ffhq.pkl", freezed=10)
    assert not loaded.notes
    assert not loaded.inert
