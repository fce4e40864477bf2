"""Each augmentation mixes both resolutions at the same places."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.config import super_resolution_rules
from lora_trainer.data.mixing import AUGMENTATIONS, mix

SCALE = 2
GREYS = (0.2, 0.5, 0.8)


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """Flat pictures of different grey, so that a mixture shows its parts."""
    greys = torch.tensor(GREYS)[:, None, None, None]
    return greys.expand(3, 3, 32, 32).clone(), greys.expand(3, 3, 16, 16).clone()


def shares(mixed: torch.Tensor) -> torch.Tensor:
    """(3, h, w) how much of the neighbour each place shows, 0 to 1."""
    own = torch.tensor(GREYS)[:, None, None]
    neighbour = own.roll(1, 0)
    return (mixed[:, 0] - own) / (neighbour - own)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("key", range(5))
def test_both_resolutions_are_mixed_alike(name: str, key: int) -> None:
    gt, lq = pictures()
    mixed_gt, mixed_lq = mix(gt, lq, SCALE, key, [name], [1.0])
    assert mixed_gt.shape == gt.shape and mixed_lq.shape == lq.shape
    torch.testing.assert_close(mixed_gt[..., ::SCALE, ::SCALE], mixed_lq, rtol=0, atol=3e-3)
    again = mix(gt, lq, SCALE, key, [name], [1.0])
    assert torch.equal(again[0], mixed_gt) and torch.equal(again[1], mixed_lq)
    assert torch.equal(gt, pictures()[0]) and torch.equal(lq, pictures()[1])


def test_mixup_adds_about_as_much_of_each() -> None:
    found = torch.stack([shares(mix(*pictures(), SCALE, key, ["mixup"], [1.0])[0]) for key in range(60)])
    torch.testing.assert_close(found.std((2, 3)), torch.zeros(60, 3), rtol=0, atol=1e-5)
    assert 0.4 - 1e-5 <= found.min() < 0.43 and 0.57 < found.max() <= 0.6 + 1e-5


@pytest.mark.parametrize(("name", "least", "most"), [("cutmix", 0.1, 1.0), ("resizemix", 0.5**2, 0.9**2)])
def test_a_rectangle_shows_the_neighbour(name: str, least: float, most: float) -> None:
    areas = []
    for key in range(60):
        _, mixed = mix(*pictures(), SCALE, key, [name], [1.0])
        found = shares(mixed)
        inside = found.round().bool()
        torch.testing.assert_close(found, inside.float(), rtol=0, atol=1e-4)
        assert torch.equal(inside[0], inside[1]) and torch.equal(inside[0], inside[2])
        rows, columns = inside[0].any(1), inside[0].any(0)
        assert torch.equal(inside[0], rows[:, None] & columns[None])
        areas.append(float(inside[0].float().mean()))
    slack = 2 / 16
    assert least - slack <= min(areas) < least + slack and most - slack < max(areas) <= most


def test_resizemix_shows_the_whole_neighbour() -> None:
    """A bright left half stays the left half of what is pasted."""
    gt, lq = torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 32, 32)
    gt[0, :, :, :32], lq[0, :, :, :16] = 1, 1
    for key in range(8):
        for mixed in mix(gt, lq, SCALE, key, ["resizemix"], [1.0]):
            bright = mixed[1, 0] > 0.5
            side = int(bright.any(1).sum()), int(bright.any(0).sum())
            assert abs(side[0] / mixed.shape[-1] - 2 * side[1] / mixed.shape[-1]) <= 2 / 32
            assert 0.5 - 1 / 16 <= side[0] / mixed.shape[-1] <= 0.9 + 1 / 32


def test_cutblur_shows_a_part_as_good_as_it_can_be() -> None:
    gt = torch.full((2, 3, 32, 32), 100 / 255)
    lq = torch.zeros(2, 3, 16, 16)
    clear = []
    for key in range(60):
        mixed_gt, mixed_lq = mix(gt, lq, SCALE, key, ["cutblur"], [1.0])
        assert torch.equal(mixed_gt, gt)
        values = mixed_lq.unique()
        torch.testing.assert_close(values, torch.tensor([0, 100 / 255]), rtol=0, atol=1e-6)
        clear.append(float((mixed_lq > 0).float().mean()))
    small, large = [area for area in clear if area < 0.5], [area for area in clear if area > 0.5]
    assert min(small) < 0.1 and max(small) <= 0.5
    assert 0.25 < len(large) / len(clear) < 0.75


def test_downup_blurs_the_input_only() -> None:
    generator = torch.Generator().manual_seed(0)
    gt, lq = torch.rand(2, 3, 64, 64, generator=generator), torch.rand(2, 3, 32, 32, generator=generator)
    changes = []
    for key in range(12):
        mixed_gt, mixed_lq = mix(gt, lq, SCALE, key, ["downup"], [1.0])
        assert mixed_gt is gt
        assert mixed_lq.min() >= 0 and mixed_lq.max() <= 1
        changes.append(float((mixed_lq - lq).abs().mean()))
    assert min(changes) > 0.03 and len({round(change, 4) for change in changes}) > 6


def test_up_shows_a_part_enlarged() -> None:
    """On a slope, what is shown is a straight piece of it, half to nine tenths as long, at one place in both."""
    lq = torch.linspace(0, 1, 32).expand(1, 3, 32, 32).clone()
    gt = torch.nn.functional.interpolate(lq, scale_factor=2, mode="bilinear")
    for key in range(12):
        mixed_gt, mixed_lq = mix(gt, lq, SCALE, key, ["up"], [1.0])
        length = float(mixed_gt[0, 0, 0, -1] - mixed_gt[0, 0, 0, 0])
        assert 0.4 < length < 0.95
        small = torch.nn.functional.avg_pool2d(mixed_gt, 2)
        torch.testing.assert_close(small, mixed_lq, rtol=0, atol=0.04)


def test_probabilities_choose() -> None:
    gt, lq = pictures()
    names = ["none", "MixUp"]
    kept = sum(mix(gt, lq, SCALE, key, names, [0.75, 0.25])[0] is gt for key in range(400))
    assert 270 < kept < 330
    with pytest.raises(ValueError, match="no augmentation cutmx; there is none, mixup"):
        mix(gt, lq, SCALE, 0, ["cutmx"], [1.0])


def test_the_preset_knows_the_names() -> None:
    assert tuple(AUGMENTATIONS) == super_resolution_rules.AUGMENTATIONS
