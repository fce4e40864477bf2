"""Each augmentation mixes both resolutions at the same places."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.data.mixing import AUGMENTATIONS, mix

SCALE = 2


def pictures(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat pictures of different grey, so that a mixture shows its parts."""
    greys = torch.linspace(0.2, 0.8, batch)[:, None, None, None]
    return greys.expand(batch, 3, 32, 32).clone(), greys.expand(batch, 3, 16, 16).clone()


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("key", range(5))
def test_both_resolutions_are_mixed_alike(name: str, key: int) -> None:
    gt, lq = pictures()
    mixed_gt, mixed_lq = mix(gt, lq, SCALE, key, [name], [1.0])
    assert mixed_gt.shape == gt.shape and mixed_lq.shape == lq.shape
    torch.testing.assert_close(mixed_gt[..., ::SCALE, ::SCALE], mixed_lq, rtol=0, atol=3e-3)
    again = mix(gt, lq, SCALE, key, [name], [1.0])
    assert torch.equal(again[0], mixed_gt) and torch.equal(again[1], mixed_lq)


@pytest.mark.parametrize("name", ["mixup", "cutmix", "resizemix"])
def test_a_partner_is_the_neighbour_in_the_batch(name: str) -> None:
    gt, lq = pictures()
    mixed, _ = mix(gt, lq, SCALE, 3, [name], [1.0])
    for index in range(3):
        low, high = sorted((float(gt[index, 0, 0, 0]), float(gt[index - 1, 0, 0, 0])))
        assert low - 1e-5 <= mixed[index].min() and mixed[index].max() <= high + 1e-5
    assert not torch.equal(mixed, gt)


def test_cutblur_shows_a_part_as_good_as_it_can_be() -> None:
    gt = torch.rand(2, 3, 32, 32)
    lq = torch.zeros(2, 3, 16, 16)
    mixed_gt, mixed_lq = mix(gt, lq, SCALE, 1, ["cutblur"], [1.0])
    assert torch.equal(mixed_gt, gt)
    assert 0 < (mixed_lq == 0).float().mean() < 1


def test_probabilities_choose() -> None:
    gt, lq = pictures()
    names = ["none", "mixup"]
    kept = sum(mix(gt, lq, SCALE, key, names, [0.75, 0.25])[0] is gt for key in range(400))
    assert 270 < kept < 330
    with pytest.raises(ValueError, match="no augmentation cutmx; there is none, mixup"):
        mix(gt, lq, SCALE, 0, ["cutmx"], [1.0])
