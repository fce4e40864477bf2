"""The heads' losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lora_trainer.losses.multilevel import heads_discriminator_loss, heads_generator_loss, heads_r1, mean_logit
from lora_trainer.models.restoration.heads import build_heads


def logits() -> list[Tensor]:
    """Two samples; a map of two places and a single number."""
    return [torch.tensor([[[[0.0, 2.0]]], [[[1.0, -1.0]]]]), torch.tensor([[1.0], [-3.0]])]


def cross_entropy(logit: float, label: float) -> float:
    return math.log1p(math.exp(logit)) - label * logit


def test_places_are_averaged_and_heads_added_up() -> None:
    for label, found in (
        (0.8, heads_generator_loss(logits())),
        (0.8, heads_discriminator_loss(logits(), True)),
        (0.0, heads_discriminator_loss(logits(), False)),
        (1.0, heads_generator_loss(logits(), 1.0)),
        (0.9, heads_discriminator_loss(logits(), True, 0.9)),
    ):
        first = (cross_entropy(0, label) + cross_entropy(2, label)) / 2 + cross_entropy(1, label)
        second = (cross_entropy(1, label) + cross_entropy(-1, label)) / 2 + cross_entropy(-3, label)
        assert found.tolist() == pytest.approx([first, second], abs=1e-6)


def test_undecided_heads_lose_the_logarithm_of_two_each() -> None:
    undecided = [torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1), torch.zeros(1, 1)]
    assert float(heads_generator_loss(undecided)) == pytest.approx(4 * math.log(2))


def test_a_label_below_one_stops_the_logit_at_log_four() -> None:
    logit = torch.full((1, 1), math.log(4), requires_grad=True)
    heads_discriminator_loss([logit], True).sum().backward()
    assert logit.grad is not None
    assert float(logit.grad) == pytest.approx(0, abs=1e-6)


def test_the_logged_logit_is_the_mean_over_heads_of_their_means() -> None:
    assert mean_logit(logits()).tolist() == [1.0, -1.5]


def test_r1_of_linear_heads_is_their_squared_weights() -> None:
    """A map's head gives each of four places 3 * c0 - c1; the other is 2 * v0. R1 is gamma / 2 * (9 + 1 + 4)."""
    maps = torch.randn(2, 2, 2, 2, requires_grad=True)
    vector = torch.randn(2, 1, requires_grad=True)
    weight = torch.tensor([3.0, -1.0], requires_grad=True)
    seen = [(maps * weight.view(1, 2, 1, 1)).sum(1, keepdim=True), vector * 2]
    penalty = heads_r1(seen, [maps, vector], gamma=0.5)
    assert penalty.tolist() == [3.5, 3.5]
    penalty.sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, -1.0]  # gamma * weight for each of two samples


def test_r1_trains_the_heads_and_not_the_features() -> None:
    heads = build_heads((3, 4, 5, 6), seed=0, hidden=8)
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 16, 16), (2, 4, 8, 8), (2, 5, 4, 4), (2, 6)]
    features = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    penalty = heads_r1(heads(features), features, gamma=10.0)
    assert penalty.shape == (2,)
    assert float(penalty.min()) > 0
    penalty.sum().backward()
    trained = {name for name, weight in heads.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert trained >= {name for name, _ in heads.named_parameters() if name.endswith("original")}
