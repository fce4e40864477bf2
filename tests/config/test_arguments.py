"""The words of optimizer_args, in each notation that presets use."""

from __future__ import annotations

import pytest

from lora_trainer.config.arguments import parse_arguments, split_arguments


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("weight_decay=0.1", {"weight_decay": 0.1}),
        ('"weight_decay=0.1"  "decouple=True"', {"weight_decay": 0.1, "decouple": True}),
        ("betas=0.9,0.99\nd0=1e-5", {"betas": (0.9, 0.99), "d0": 1e-5}),
        ('betas="0.9, 0.99"', {"betas": (0.9, 0.99)}),
        ("relative_step=False warmup_init=None", {"relative_step": False, "warmup_init": None}),
        ('mode="cosine"', {"mode": "cosine"}),
        ("\"mode='cosine'\"", {"mode": "cosine"}),
    ],
)
def test_options_are_python_values(text: str, options: dict[str, object]) -> None:
    assert parse_arguments(split_arguments(text)) == options


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("decouple", '"decouple" is not of the form name=value'),
        ("--weight_decay=1", '"--weight_decay=1" is not of the form name=value'),
        ("a=1 a=2", "a is given twice"),
        ("mode=cosine", 'mode cannot be "cosine"; write a number, True, False, None, (1, 2) or a text in quotes'),
        ("a=print(1)", 'a cannot be "print(1)"; write a number, True, False, None, (1, 2) or a text in quotes'),
    ],
)
def test_a_malformed_word_is_named(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_arguments(split_arguments(text))
    assert str(caught.value) == problem
