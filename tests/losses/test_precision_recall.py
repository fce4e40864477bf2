"""Precision and recall on points whose balls are seen at a glance."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.losses.precision_recall import ball_radii, covered_share, precision_recall

LINE = torch.tensor([[0.0], [1.0], [3.0], [6.0], [10.0]])


def test_a_ball_reaches_to_the_kth_other_feature() -> None:
    assert ball_radii(LINE, 1).tolist() == [1, 1, 2, 3, 4]
    assert ball_radii(LINE, 3).tolist() == [6, 5, 3, 5, 9]


def test_probes_within_any_ball_count_and_the_border_belongs_to_it() -> None:
    radii = ball_radii(LINE, 1)
    probes = torch.tensor([[-1.0], [-1.1], [5.0], [14.0], [14.5]])
    assert covered_share(probes, LINE, radii) == 3 / 5


@pytest.mark.parametrize("block", [2, 3, 100])
def test_blocks_change_nothing(block: int) -> None:
    draws = torch.Generator().manual_seed(0)
    real, fake = torch.randn(23, 4, generator=draws).double(), torch.randn(31, 4, generator=draws).double() * 1.5
    distances = torch.cdist(real, real)
    radii = distances.sort(1).values[:, 3]
    precision = (torch.cdist(fake, real) <= radii).any(1).double().mean()
    found = precision_recall(real, fake, block=block)
    assert found[0] == pytest.approx(float(precision))
    assert 0 < found[0] < 1
    assert found == (precision_recall(fake, real)[1], precision_recall(fake, real)[0])


def test_one_place_for_all_fakes_is_precise_and_recalls_nothing() -> None:
    real = torch.tensor([[float(x), float(y)] for x in range(4) for y in range(4)])
    assert precision_recall(real, real[5] + torch.zeros(9, 2)) == (1.0, 1 / 16)
    assert precision_recall(real, real + 100) == (0.0, 0.0)


def test_half_precision_is_widened_and_too_few_are_told() -> None:
    assert precision_recall(LINE.half(), LINE.half(), 2) == (1.0, 1.0)
    with pytest.raises(ValueError, match="3 features have no 3 neighbours each"):
        precision_recall(LINE[:3], LINE)
