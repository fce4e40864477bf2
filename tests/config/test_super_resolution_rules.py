"""What super-resolution keys say to each other, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.problems import PresetError
from lora_trainer.config.reader import Loaded, load_preset
from lora_trainer.config.super_resolution import SuperResolutionPreset

Load = Callable[..., Loaded]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def read(**keys: Any) -> Loaded:
        preset = {
            "trainer": "super_resolution", "output_dir": "out", "output_name": "a", "network_g": {"type": "span"},
            "dataroot_gt": "hr", "total_iter": 10, **keys,
        }  # fmt: skip
        path = tmp_path / "preset.json"
        path.write_text(json.dumps(preset), encoding="utf-8")
        return load_preset(path)

    return read


GAN = [{"type": "l1loss"}, {"type": "GANLoss", "loss_weight": 0.1}]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"gt_size": 130, "scale": 4}, "gt_size: 130 is not a multiple of scale 4; write lq_size instead"),
        ({"gt_size": 128, "lq_size": 48}, "gt_size: says another size than lq_size: 32 and 48"),
        ({"losses": [{"type": "l1loss", "loss_weight": 0}]}, "losses: every loss has the weight 0"),
        (
            {"losses": [{"type": "l1loss", "loss_weight": "1"}]},
            "the loss_weight of l1loss is '1'; write a number",
        ),
        ({"losses": GAN}, 'losses: ganloss needs a discriminator; add "network_d": {"type": "dunet"}'),
        ({"dataroot_lq": ["a", "b"]}, "dataroot_lq: 2 folders for the 1 of dataroot_gt; give one for each"),
        ({"scale": 1}, "scale: with scale 1 the input would be the result; give dataroot_lq"),
        ({"val_enabled": True}, "val_enabled: needs pictures to measure on; give val_dataroot_gt"),
        (
            {"val_enabled": True, "val_dataroot_gt": "v", "save_best": "lpips"},
            "save_best: lpips is not one of the metrics (psnr, ssim)",
        ),
        (
            {"high_order_degradation": True, "dataroot_lq_prob": 0.5},
            "there is no dataroot_lq to take pictures from",
        ),
        ({"use_moa": True, "moa_augs": ["mixup"]}, "moa_probs: 5 numbers for 1 augmentations"),
        ({"use_moa": True, "moa_augs": ["mixp"], "moa_probs": [1]}, "moa_augs: there is no mixp; there is none, mixup"),
        ({"ema_decay": 0, "losses": [{"type": "ldlloss"}]}, "losses: ldlloss compares with the averaged network"),
        ({"scale": 9}, "scale: found 9; write a whole number from 1 to 8"),
        ({"resize_range": [1.5, 0.4]}, "resize_range: found [1.5, 0.4]; write the smaller number first"),
        ({"network_g": "span"}, 'network_g: found "span"; write an object with a "type"'),
        ({"dataset_enlarge_ratio": "often"}, 'dataset_enlarge_ratio: found "often"; write "auto" or a whole number'),
        ({"thicklines_prob": 0.5}, "thicklines_prob: 0.5 is not supported yet; remove the key or set it to 0.0"),
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
        ({"optim_d": {"type": "Adam"}}, {"optim_d": "there is no ganloss with a weight, so there is no discriminator"}),
        ({"jpeg_range": [5, 9]}, {"jpeg_range": "high_order_degradation is false"}),
        ({"queue_size": 60, "high_order_degradation": True}, {"queue_size": "every crop is degraded on its own"}),
        (
            {"num_gpu": 2, "ema_decay": 0, "ema_power": 2},
            {"num_gpu": "the launcher decides", "ema_power": "ema_decay is 0"},
        ),
        ({"use_amp": True, "mixed_precision": "bf16"}, {"use_amp": "mixed_precision says it"}),
        ({"grad_clip_max_norm": 1, "compile_mode": "max-autotune"}, {"grad_clip_max_norm": "grad_clip is false"}),
        ({"val_freq": 5}, {"val_freq": "val_enabled is false"}),
        ({"strict_load_g": False}, {"strict_load_g": "there is no pretrain_network_g"}),
    ],
)
def test_what_does_nothing_is_told(load: Load, keys: dict[str, Any], idle: dict[str, str]) -> None:
    found = load(**keys).inert
    for key, reason in idle.items():
        assert found[key].startswith(reason)


def test_what_follows_from_the_keys(load: Load) -> None:
    def read(**keys: Any) -> SuperResolutionPreset:
        preset = load(**keys).preset
        assert isinstance(preset, SuperResolutionPreset)
        return preset

    assert (read(gt_size=256, scale=4).lq_px, read(lq_size=48, scale=2).gt_px) == (64, 96)
    assert [read(**keys).number_format for keys in ({}, {"use_amp": True}, {"use_amp": True, "amp_bf16": True})] == [
        "no", "fp16", "bf16",
    ]  # fmt: skip
    with_gan = read(losses=[*GAN, {"type": "distsloss", "loss_weight": 0}], network_d={"type": "dunet"})
    assert with_gan.gan_loss is not None and with_gan.gan_loss.options == {"loss_weight": 0.1}
    assert [loss.type for loss in with_gan.pixel_losses] == ["l1loss"]
    assert read(losses=[{"type": "l1loss"}]).gan_loss is None


def test_a_schedule_free_optimizer_has_its_own_average(load: Load) -> None:
    assert "averages by itself" in load(optim_g={"type": "AdamW_SF", "lr": 1e-3}).notes[0]
    assert load(optim_g={"type": "AdamW", "lr": 1e-3}).notes == ()
