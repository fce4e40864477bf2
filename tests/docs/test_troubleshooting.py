"""Every message of the troubleshooting pages is one of the source's, and what the source can refuse is on them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.messages import GAP, every_text, refusals

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "troubleshooting").glob("*.md"))
ROW = re.compile(r"^\| `([^`]+)` \| (.+) \|$", re.MULTILINE)
PLACEHOLDER = re.compile(r"\{[a-z ]+\}")
ELSEWHERE = ("data/doctor/", "report/doctor/")  # findings, whose page says what to do
NOT_LISTED = {  # sentences of these files that no row has, and why
    "config/explain.py": ("for models that lora_trainer does not train",),  # an answer
    "config/finetune_rules.py": ("the trained weights are bf16",),  # a note, as are the next ones
    "config/lora_rules.py": (
        "; turn one of them off",
        "read by the Huber losses",
        " steps rise from 0",
        "0 is taken as it stands",
        "is constant here",
    ),
    # what follows puts a place in front of a sentence that is listed, or is listed with what is put in its gaps
    "config/lora_network_rules.py": ("; write a rank",),
    "config/gan_rules.py": ("missing; write it, for example training-runs",),
    "engine/schedules.py": ('the scheduler "',),
    "models/adapter_extract.py": (" is ",),
    "models/detect_tensors.py": (", not a base model",),
    "models/sr_networks.py": ("network_g ",),
    "trainers/finetune/prompts.py": ("sample_prompts: ",),
    "trainers/lora/data.py": ("; turn one of them off",),
}


@cache
def fragments(message: str) -> list[str]:
    """The literal parts between the placeholders."""
    return [part.strip() for part in PLACEHOLDER.split(message) if part.strip()]


def says(text: str, message: str) -> bool:
    """Whether the message's literal parts are in the text, in order."""
    at = 0
    for part in fragments(message):
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


def quoted(page: Path) -> list[str]:
    return [message for message, _ in ROW.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_message_is_one_that_the_source_has(page: Path) -> None:
    texts = every_text()
    assert len(quoted(page)) > 20
    assert [message for message in quoted(page) if not any(says(text, message) for text in texts)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_message_says_enough_to_be_found_and_stands_once(page: Path) -> None:
    messages = quoted(page)
    assert [message for message in messages if len("".join(fragments(message))) < 10] == []
    assert sorted(messages) == sorted(set(messages))
    assert all(cure.strip() for _, cure in ROW.findall(page.read_text(encoding="utf-8")))


def test_what_can_be_refused_is_on_a_page() -> None:
    messages = [message for page in PAGES for message in quoted(page)]
    missing = [
        f"{sentence.file}:{sentence.line} {sentence.text.replace(GAP, '...')}"
        for sentence in refusals()
        if not sentence.file.startswith(ELSEWHERE)
        and not any(says(sentence.text, message) for message in messages)
        and not any(start in sentence.text for start in NOT_LISTED.get(sentence.file, ()))
    ]
    assert missing == []


def test_the_source_is_read_as_it_is_meant() -> None:
    """The collector would go silent if the ways of refusing changed."""
    found = refusals()
    assert len(found) > 450
    texts = {sentence.text for sentence in found}
    assert (
        f"{GAP}: the run {GAP} is at work in this folder (process {GAP}); wait for it, stop it, or give another "
        "output_dir" in texts
    )
    assert f"unknown key{GAP}" in texts
    assert {sentence.file.split("/")[0] for sentence in found} >= {"config", "data", "engine", "models", "trainers"}
