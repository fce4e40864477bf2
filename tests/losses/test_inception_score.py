"""The Inception score where it is known: as many as the classes that are seen surely and evenly."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.losses.inception_score import inception_score


def test_sure_and_even_classes_score_their_number() -> None:
    probabilities = torch.eye(4).repeat(25, 1)  # with exact zeros
    assert inception_score(probabilities, 5) == (pytest.approx(4), pytest.approx(0, abs=1e-12))


def test_images_that_look_alike_score_one() -> None:
    assert inception_score(torch.full((30, 8), 1 / 8))[0] == pytest.approx(1)
    assert inception_score(torch.eye(4)[:1].repeat(30, 1))[0] == pytest.approx(1)


def test_splits_are_scored_by_themselves() -> None:
    """The first half is sure of one class, the second of two."""
    probabilities = torch.eye(2)[[0, 0, 0, 0, 0, 1, 0, 1]]
    mean, deviation = inception_score(probabilities, 2)
    assert (mean, deviation) == (pytest.approx(1.5), pytest.approx(0.5))


def test_the_formula() -> None:
    p = torch.randn(13, 5, generator=torch.Generator().manual_seed(0)).double().softmax(1)
    parts = [p[:4], p[4:8], p[8:]]  # 13 i / 3
    scores = torch.stack([(part * (part.log() - part.mean(0).log())).sum(1).mean().exp() for part in parts])
    mean, deviation = inception_score(p, 3)
    assert (mean, deviation) == (pytest.approx(float(scores.mean())), pytest.approx(float(scores.std(correction=0))))
