"""What the degradation's keys do, and that a crop's fate follows from its own key."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.config.super_resolution import SuperResolutionPreset
from lora_trainer.data.degradation import SETTINGS, DegradationSettings, degrade, describe, plan_degradation
from lora_trainer.data.jpeg import jpeg
from lora_trainer.data.resize import interpolate, to_eight_bits

PHOTOS = Path(__file__).parents[2] / "presets" / "photos" / "2_photo"
NOTHING: dict[str, Any] = {
    "jpeg_prob": 0.0, "jpeg_prob2": 0.0, "resize_prob": (0, 0, 1), "resize_prob2": (0, 0, 1),
    "resize_mode_list2": ("bicubic",), "resize_mode_prob2": (1,),
    "resize_mode_list3": ("bicubic",), "resize_mode_prob3": (1,),
}  # fmt: skip
EVERYTHING: dict[str, Any] = {
    "blur_prob": 1.0, "sinc_prob": 0.3, "gaussian_noise_prob": 0.5, "noise_range": (1, 30), "gray_noise_prob": 0.4,
    "poisson_scale_range": (0.05, 3), "blur_prob2": 0.8, "noise_range2": (1, 25), "poisson_scale_range2": (0.05, 2.5),
    "gaussian_noise_prob2": 0.5, "final_sinc_prob": 0.8, "lq_usm": True, "resize_range": (0.15, 1.5),
}  # fmt: skip


def photos() -> torch.Tensor:
    """(3, 3, 96, 96)"""
    found = []
    for name in ("cat", "coffee", "coins"):
        with Image.open(PHOTOS / f"{name}.jpg") as image:
            found.append(np.array(image.convert("RGB"))[:96, :96])
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255


def degraded(gt: torch.Tensor, keys: list[int], scale: int = 4, **settings: Any) -> torch.Tensor:
    size = (gt.shape[-2], gt.shape[-1])
    return degrade(gt, [plan_degradation(DegradationSettings(**settings), scale, size, key) for key in keys])


def test_without_anything_it_is_a_downscale() -> None:
    gt = photos()
    wanted = to_eight_bits(interpolate(gt, (24, 24), "bicubic").clamp(0, 1))
    assert torch.equal(degraded(gt, [1, 2, 3], **NOTHING), wanted)


def test_one_jpeg_is_that_jpeg() -> None:
    gt = photos()[:1]
    found = degraded(gt, [1], **{**NOTHING, "jpeg_prob": 1.0, "jpeg_range": (40, 40)})
    assert torch.equal(found, to_eight_bits(interpolate(jpeg(gt, [40]), (24, 24), "bicubic").clamp(0, 1)))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_crop_does_not_depend_on_its_neighbours(scale: int) -> None:
    gt = photos()
    together = degraded(gt, [5, 6, 7], scale, **EVERYTHING)
    assert together.shape == (3, 3, 96 // scale, 96 // scale)
    assert torch.equal(together, to_eight_bits(together))
    for index, key in enumerate((5, 6, 7)):
        assert torch.equal(together[index : index + 1], degraded(gt[index : index + 1], [key], scale, **EVERYTHING))
    assert not torch.equal(together, degraded(gt, [5, 6, 8], scale, **EVERYTHING))


def test_the_published_ranges_are_worse_than_the_mild_ones() -> None:
    gt = photos()
    clean = degraded(gt, [0, 0, 0], **NOTHING)

    def damage(**settings: Any) -> float:
        return float(
            np.mean([(degraded(gt, [k, k + 1, k + 2], **settings) - clean).abs().mean() for k in range(0, 30, 3)])
        )

    mild, strong = damage(), damage(**EVERYTHING, jpeg_range=(30, 95), jpeg_range2=(30, 95))
    assert 0.002 < mild < strong / 1.5


def test_plans_keep_to_their_ranges_and_shares() -> None:
    settings = DegradationSettings(**EVERYTHING, kernel_range=(7, 21), jpeg_range=(30, 95), video_prob=0.25)
    plans = [plan_degradation(settings, 4, (96, 96), key) for key in range(1000)]
    first = [plan.rounds[0] for plan in plans]
    assert {each.blur.side_px for each in first if each.blur} == {7, 9, 11, 13, 15, 17, 19, 21}
    assert np.mean([each.blur.kind == "sinc" for each in first if each.blur]) == pytest.approx(0.3, abs=0.05)
    assert np.mean([each.factor < 1 for each in first]) == pytest.approx(0.7, abs=0.05)
    assert np.mean([each.factor > 1 for each in first]) == pytest.approx(0.2, abs=0.05)
    assert 0.15 <= min(each.factor for each in first) < 0.2 and 1.4 < max(each.factor for each in first) <= 1.5
    assert np.mean([each.gaussian > 0 for each in first]) == pytest.approx(0.5, abs=0.05)
    assert all((each.gaussian > 0) != (each.poisson > 0) for each in first)
    assert (min(each.quality for each in first), max(each.quality for each in first)) == (30, 95)
    assert np.mean([plan.rounds[1].blur is not None for plan in plans]) == pytest.approx(0.8, abs=0.05)
    assert np.mean([plan.sinc is not None for plan in plans]) == pytest.approx(0.8, abs=0.05)
    assert np.mean([bool(plan.codec) for plan in plans]) == pytest.approx(0.25, abs=0.05)
    assert {plan.codec for plan in plans} == {"", "h264", "h265"}
    assert pickle.loads(pickle.dumps(plans[0])) == plans[0]


def test_a_video_codec_takes_the_last_jpegs_place() -> None:
    gt = photos()[:1]
    settings = {**NOTHING, "jpeg_prob2": 1.0, "jpeg_range2": (1, 1), "video_prob": 1.0, "video_crf_range": (12, 12)}
    found = degraded(gt, [1], **settings)
    clean = degraded(gt, [1], **NOTHING)
    assert 0.001 < (found - clean).abs().mean() < 0.03  # a JPEG of quality 1 would do far more
    assert describe(plan_degradation(DegradationSettings(**settings), 4, (96, 96), 1)).endswith(" 12, to size bicubic")


def test_a_plan_is_told_in_one_line() -> None:
    plan = plan_degradation(DegradationSettings(**EVERYTHING), 4, (96, 96), 3)
    said = describe(plan)
    assert "\n" not in said
    assert f"jpeg {plan.rounds[0].quality}" in said
    assert f"resize {plan.rounds[0].factor:.2f}" in said or plan.rounds[0].factor == 1


def test_every_range_is_a_key_of_the_preset_with_the_same_default() -> None:
    fields = {each.name: each for each in dataclasses.fields(SuperResolutionPreset)}
    for name in SETTINGS:
        ours, presets = getattr(DegradationSettings(), name), fields[name].default
        assert presets == (tuple(ours) if isinstance(ours, (list, tuple)) else ours), name


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"kernel_list": ("iso", "anisso")}, "kernel_list: there is no anisso; there is iso, aniso"),
        ({"resize_mode_prob3": (1,)}, "resize_mode_prob3: 1 numbers for the 4 of resize_mode_list3"),
        ({"jpeg_range": (0, 95)}, "jpeg_range: [0, 95]; write two numbers from 1 to 100"),
        ({"resize_prob": (1, 1)}, "resize_prob: [1, 1]; write three shares: up, down, keep"),
        ({"video_codecs": ("av1",)}, "video_codecs: there is no av1; there is h264, h265"),
        ({"kernel_prob2": (0, 0, 0, 0, 0, 0)}, "kernel_prob2: [0, 0, 0, 0, 0, 0]; write shares from 0 upwards"),
        ({"resize_prob2": (-1, 3, 0)}, "resize_prob2: [-1, 3, 0]; write three shares: up, down, keep"),
        ({"kernel_range": (4, 4)}, "kernel_range: [4, 4] has no odd number"),
        ({"final_kernel_range": (8, 8)}, "final_kernel_range: [8, 8] has no odd number"),
        ({"blur_sigma2": (0, 1)}, "blur_sigma2: [0, 1]; write two numbers from 0.01 to 100"),
        ({"betag_range": (-2, 4)}, "betag_range: [-2, 4]; write two numbers from 0.01 to 100"),
        ({"noise_range": (9, 2)}, "noise_range: [9, 2]; write two numbers from 0 to 255, the smaller one first"),
        ({"poisson_scale_range2": (-3, 1)}, "poisson_scale_range2: [-3, 1]; write two numbers from 0 to 100"),
        ({"video_prob": 0.5, "video_codecs": ()}, "video_codecs: empty, but video_prob is 0.5; write h264 or h265"),
    ],
)
def test_wrong_ranges_are_named(settings: dict[str, Any], problem: str) -> None:
    found = DegradationSettings(**settings).validate()
    assert any(each.startswith(problem) for each in found), found
