"""Random choices are functions of their keys, the same on every machine."""

from __future__ import annotations

import torch

from lora_trainer.draws import draw_key, python_random, torch_generator, uniform


def test_keys_are_fixed_numbers() -> None:
    assert draw_key(42, 0, 3, "noise") == 0x1CB04D31957BFBA6
    assert draw_key(1, 23) != draw_key(12, 3)
    assert draw_key(1, "2") != draw_key(1, 2)


def test_streams_do_not_touch_each_other() -> None:
    keys = {draw_key(7, step, sample, word) for step in range(50) for sample in range(20) for word in ("a", "b")}
    assert len(keys) == 2000


def test_uniform_numbers_are_spread_over_the_unit_interval() -> None:
    numbers = [uniform("test", index) for index in range(4000)]
    assert 0 <= min(numbers) < 0.01
    assert 0.99 < max(numbers) < 1
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.02


def test_generators_repeat_themselves() -> None:
    assert python_random(1, "x").random() == python_random(1, "x").random()
    first, second = (torch.randn(5, generator=torch_generator(9, "noise")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.randn(5, generator=torch_generator(9 + 2**32, "noise")))
