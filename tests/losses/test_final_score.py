"""Final_Score and the averages of a validation."""

from __future__ import annotations

import pytest

from lora_trainer.losses.final_score import PictureQuality, final_score, validation_metrics


def test_the_formula() -> None:
    assert final_score(22.15, 0.6656, 0.342) == pytest.approx(22.15 + 6.656 - 1.71)


def test_averages_are_over_pictures_not_over_types() -> None:
    measured = [
        PictureQuality("Rain", 20, 0.5, 0.4),
        PictureQuality("Blur", 26, 0.8, 0.1),
        PictureQuality("Rain", 23, 0.8, 0.1),
    ]
    metrics = validation_metrics(measured)
    assert list(metrics) == [
        "val/PSNR", "val/SSIM", "val/LPIPS", "val/Final_Score",
        "val/Blur/PSNR", "val/Blur/SSIM", "val/Blur/LPIPS", "val/Rain/PSNR", "val/Rain/SSIM", "val/Rain/LPIPS",
    ]  # fmt: skip
    assert list(metrics.values()) == pytest.approx([23, 0.7, 0.2, 29, 26, 0.8, 0.1, 21.5, 0.65, 0.25])


def test_pictures_without_a_type_have_no_names_of_their_own() -> None:
    assert list(validation_metrics([PictureQuality("", 20, 0.5, 0.4)])) == [
        "val/PSNR", "val/SSIM", "val/LPIPS", "val/Final_Score",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no pictures were measured"):
        validation_metrics([])
