"""Brackets to weights, by the rules that the webuis show their users."""

from __future__ import annotations

import pytest

from lora_trainer.models.prompt_weights import has_bare_brackets, weighted_fragments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("normal text", [("normal text", 1.0)]),
        ("a (red) cat", [("a ", 1.0), ("red", 1.1), (" cat", 1.0)]),
        ("(cat:1.3), tree", [("cat", 1.3), (", tree", 1.0)]),
        ("(cat: 1.3 )", [("cat", 1.3)]),
        ("(cat:.5)(dog:-2)(fox:+1.5)", [("cat", 0.5), ("dog", -2.0), ("fox", 1.5)]),
        ("[sky]", [("sky", 1 / 1.1)]),
        ("((sky))", [("sky", 1.1 * 1.1)]),
        ("[(sky)]", [("sky", 1.1 * (1 / 1.1))]),
        ("((a:2) b:3)", [("a", 6.0), (" b", 3.0)]),
        ("(open", [("open", 1.1)]),
        ("[(open", [("open", 1.1 * (1 / 1.1))]),
        ("closed) twice]", [("closed) twice]", 1.0)]),
        ("number:1.3) alone", [("number:1.3) alone", 1.0)]),
        ("ratio 16:9, time 12:30", [("ratio 16:9, time 12:30", 1.0)]),
        ("(a:b:1.2)", [("a:b", 1.2)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("(a:high)", [("a:high", 1.1)]),
        (r"saber \(fate\)", [("saber (fate)", 1.0)]),
        (r"(saber \(fate\):1.2)", [("saber (fate)", 1.2)]),
        (r"\[x\] \\ \o/", [(r"[x] \ o/", 1.0)]),
        ("(unnecessary)(brackets)", [("unnecessarybrackets", 1.1)]),
        ("()(:1.3)", []),
    ],
)
def test_fragments(text: str, expected: list[tuple[str, float]]) -> None:
    assert [tuple(fragment) for fragment in weighted_fragments(text)] == [
        (piece, pytest.approx(weight)) for piece, weight in expected
    ]


@pytest.mark.parametrize("text", ["saber (fate)", "[sky]", "(open", "((a):1.3)", "a (b (c:1.2))", "[open", ":("])
def test_brackets_that_may_be_meant_as_text(text: str) -> None:
    assert has_bare_brackets(text)


@pytest.mark.parametrize("text", ["", "cat", r"saber \(fate\)", "(cat:1.3)", "((a:1.2) b:1.3)", ":)", "a]", "16:9"])
def test_brackets_that_are_meant(text: str) -> None:
    assert not has_bare_brackets(text)
