"""The one number that says which restoration is the best, and the averages that a validation logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

SSIM_WEIGHT, LPIPS_WEIGHT = 10.0, 5.0


@dataclass(frozen=True)
class PictureQuality:
    """What was measured of one picture; `kind` is its type of degradation, "" without one."""

    kind: str
    psnr: float
    ssim: float
    lpips: float


def final_score(psnr: float, ssim: float, lpips: float) -> float:
    """PSNR + 10 SSIM - 5 LPIPS: the more the better."""
    return psnr + SSIM_WEIGHT * ssim - LPIPS_WEIGHT * lpips


def validation_metrics(pictures: Sequence[PictureQuality]) -> dict[str, float]:
    """`val/PSNR`, `val/Final_Score`... over all pictures, then `val/Blur/PSNR`... for each type, sorted.

    A picture counts the same whatever its type, so that a type with more pictures weighs more. ValueError for none.
    """
    if not pictures:
        raise ValueError("no pictures were measured")
    metrics = _means("val", pictures)
    metrics["val/Final_Score"] = final_score(*metrics.values())
    for kind in sorted({picture.kind for picture in pictures} - {""}):
        metrics |= _means(f"val/{kind}", [picture for picture in pictures if picture.kind == kind])
    return metrics


def _means(prefix: str, pictures: Sequence[PictureQuality]) -> dict[str, float]:
    return {
        f"{prefix}/PSNR": fmean(picture.psnr for picture in pictures),
        f"{prefix}/SSIM": fmean(picture.ssim for picture in pictures),
        f"{prefix}/LPIPS": fmean(picture.lpips for picture in pictures),
    }
