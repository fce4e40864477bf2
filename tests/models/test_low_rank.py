"""Singular values, how many of them are kept, and what is lost."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.models.low_rank import (
    RankRule,
    clamped_factors,
    decompose,
    decompose_product,
    factors,
    kept_rank,
    lost_share,
)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (300, 400), (400, 300)])
def test_a_matrix_is_its_vectors_times_its_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found = decompose(matrix)
    torch.testing.assert_close(found.u * found.values @ found.v, matrix, rtol=0, atol=2e-5)
    torch.testing.assert_close(found.values, torch.linalg.svdvals(matrix), rtol=1e-4, atol=1e-4)
    identity = torch.eye(min(shape))
    torch.testing.assert_close(found.u.T @ found.u, identity, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.v @ found.v.T, identity, rtol=0, atol=1e-4)


def test_a_large_matrix_of_few_ranks() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(300, 5) @ torch.randn(5, 400)
    found = decompose(matrix)
    assert found.values[5] < 1e-5 * found.values[0]
    up, down = factors(found, 5)
    torch.testing.assert_close(up @ down, matrix, rtol=1e-4, atol=1e-4)
    assert decompose(torch.zeros(300, 300)).v.isfinite().all()


@pytest.mark.parametrize(("out", "rank", "into"), [(30, 4, 50), (50, 4, 30), (6, 8, 7), (6, 6, 40)])
def test_a_product_is_never_made(out: int, rank: int, into: int) -> None:
    torch.manual_seed(0)
    up, down = torch.randn(out, rank), torch.randn(rank, into)
    found = decompose_product(up, down)
    assert len(found.values) == min(out, rank, into)
    torch.testing.assert_close(found.u * found.values @ found.v, up @ down, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.values, torch.linalg.svdvals(up @ down)[: len(found.values)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("rule", "rank"),
    [
        (RankRule(3), 3),
        (RankRule(9), 4),
        (RankRule(9, "sv_ratio", 2.0), 1),  # above 4, not equal to it
        (RankRule(9, "sv_ratio", 2.1), 2),
        (RankRule(9, "sv_cumulative", 12 / 15), 2),
        (RankRule(9, "sv_cumulative", 0.999), 4),
        (RankRule(9, "sv_fro", (80 / 85) ** 0.5), 2),
        (RankRule(9, "sv_fro", 0.1), 1),
        (RankRule(2, "sv_fro", 1.0), 2),
    ],
)
def test_how_many_ranks_a_rule_keeps(rule: RankRule, rank: int) -> None:
    assert kept_rank(torch.tensor([8.0, 4, 2, 1]), rule) == rank


def test_nothing_gets_one_rank() -> None:
    assert kept_rank(torch.zeros(4), RankRule(3, "sv_cumulative", 1.0)) == 1
    assert lost_share(torch.zeros(4), 1) == 0.0
    assert lost_share(torch.tensor([4.0, 3.0]), 1) == pytest.approx(0.6)


def test_both_factors_have_half_of_the_size() -> None:
    torch.manual_seed(0)
    up, down = factors(decompose(torch.randn(8, 6)), 3)
    torch.testing.assert_close(up.norm(dim=0), down.norm(dim=1))


def test_clamped_factors_are_cut_at_the_quantile_of_both() -> None:
    torch.manual_seed(0)
    whole = decompose(torch.randn(20, 30))
    up, down = clamped_factors(whole, 5, 1.0)
    torch.testing.assert_close(up, whole.u[:, :5] * whole.values[:5])
    torch.testing.assert_close(down, whole.v[:5])
    largest = torch.quantile(torch.cat([up.flatten(), down.flatten()]), 0.9)
    cut_up, cut_down = clamped_factors(whole, 5, 0.9)
    assert torch.equal(cut_up, up.clamp(-largest, largest))
    assert torch.equal(cut_down, down.clamp(-largest, largest))
