"""How p follows the signs of the logits."""

from __future__ import annotations

import json

import pytest
import torch

from lora_trainer.models.gan.augmentation_strength import AdaptiveStrength, FixedStrength


def test_it_rises_and_falls_by_the_images_seen() -> None:
    strength = AdaptiveStrength(0.0, target=0.6, interval=4, kimg=0.5)
    assert [strength.is_due(step) for step in range(5)] == [True, False, False, False, True]
    strength.observe(torch.tensor([[3.0], [1.0], [0.2], [0.1]]))
    strength.observe(torch.tensor([[2.0], [-1.0]]))
    strength.update(batch=16)
    assert strength.mean_sign == pytest.approx(4 / 6)
    assert strength.p == pytest.approx(16 * 4 / 500)
    strength.observe(torch.tensor([[2.0], [-1.0]]))
    strength.update(batch=16)
    assert strength.p == 0


def test_it_stays_within_0_and_1_and_where_it_is_on_target() -> None:
    strength = AdaptiveStrength(0.99, target=0.6, kimg=0.1)
    strength.observe(torch.ones(4, 1))
    strength.update(batch=32)
    assert strength.p == 1
    strength.update(batch=32)  # nothing was observed
    assert strength.p == 1
    strength.target = 0.5
    strength.observe(torch.tensor([1.0, 1.0, 1.0, -1.0]))
    strength.update(batch=32)
    assert strength.p == 1


def test_signs_of_other_processes_can_take_part() -> None:
    strength = AdaptiveStrength(0.5, kimg=1.0)
    strength.observe(torch.ones(4, 1))
    assert strength.signs is not None
    strength.update(batch=8, signs=strength.signs + torch.tensor([-4.0, 4.0]))
    assert strength.p == pytest.approx(0.5 - 8 * 4 / 1000)
    assert strength.signs is None


def test_its_state_survives_between_two_updates() -> None:
    strength = AdaptiveStrength(0.3)
    strength.observe(torch.tensor([1.0, -1.0, 1.0]))
    again = AdaptiveStrength()
    again.load_state_dict(json.loads(json.dumps(strength.state_dict())))
    for each in (strength, again):
        each.observe(torch.tensor([1.0]))
        each.update(batch=64)
    assert again.state_dict() == strength.state_dict()
    assert again.p != 0.3


def test_a_fixed_strength_is_the_presets() -> None:
    strength = FixedStrength(0.2)
    strength.observe(torch.ones(4))
    strength.load_state_dict({"p": 0.9})
    assert (strength.p, strength.is_due(0)) == (0.2, False)
