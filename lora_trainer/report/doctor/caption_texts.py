"""What the page says of captions and tags."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor
from statistics import median

from lora_trainer.data.doctor.caption_findings import CaptionFindings
from lora_trainer.data.doctor.examination import Examination
from lora_trainer.report.doctor.finding import HARM, NOTE, Finding, counted, share, verb

LONGEST_TEXT = 160
MOST_FOLDERS = 6  # with a finding each
SHARED_PART = 0.1  # of the pictures with one caption: from here on it is worth a word


def caption_findings(found: Examination) -> Iterator[Finding]:
    captions, rules = found.captions, found.dataset.captions
    if captions is None or rules is None:
        return
    entries = found.dataset.entries
    total = len(captions.tokens)
    if captions.missing:
        rows = tuple((entries[n].name, f"no {each.expected}") for n in captions.missing if (each := entries[n].caption))
        count = len(rows)
        every = count == total
        title = "No picture has a caption" if every and count > 1 else f"{counted(count, 'picture')} without a caption"
        meaning = f"Each is trained with {rules.fallback or 'nothing'} instead."
        cure = "That is a way to train a single subject." if every else f"Write a {rules.extension} file beside each."
        yield Finding(NOTE if every else HARM, title, meaning, cure, rows, captions.missing, "captions")
    yield from _long(found, captions)
    yield from _shared(found, captions)
    if captions.marked:
        rows = tuple((entries[number].name, "") for number in captions.marked)
        title = f"{counted(len(rows), 'caption file')} {verb(len(rows), 'begins', 'begin')} with a byte order mark"
        yield Finding(NOTE, title, "It is skipped here; other programs may read it as a letter.", "", rows)
    yield from _tags(found, captions)


def _long(found: Examination, captions: CaptionFindings) -> Iterator[Finding]:
    rules = found.dataset.captions
    if not captions.long or rules is None:
        return
    rows = tuple(
        (found.dataset.entries[each.number].name, f"{each.tokens} tokens; cut away: {shortened(each.cut)}")
        for each in captions.long
    )
    title = f"{counted(len(rows), 'caption')} {verb(len(rows), 'is', 'are')} longer than {rules.limit} tokens"
    meaning = "What is beyond it is never read, so its subject is learnt as part of everything else."
    cure = f"Shorten them, or put what matters first. {rules.more}".strip()
    yield Finding(HARM, title, meaning, cure, rows, section="captions")


def _shared(found: Examination, captions: CaptionFindings) -> Iterator[Finding]:
    many = [(text, numbers) for text, numbers in captions.shared if len(numbers) >= SHARED_PART * captions.captioned]
    if many:
        rows = tuple((shortened(text), counted(len(numbers), "picture")) for text, numbers in many)
        total = sum(len(numbers) for _, numbers in many)
        title = f"{counted(total, 'picture')} share {counted(len(many), 'caption')}"
        meaning = "The words cannot tell these pictures apart, so all of each is learnt as what the caption says."
        yield Finding(NOTE, title, meaning, "Say in each what is not the subject.", rows, section="captions")


def _tags(found: Examination, captions: CaptionFindings) -> Iterator[Finding]:
    tags, entries = captions.tags, found.dataset.entries
    if tags.spellings:
        rows = tuple(
            (" / ".join(tag for tag, _ in each.tags), " to ".join(f"{count:,}" for _, count in each.tags))
            for each in tags.spellings
        )
        title = f"{counted(len(rows), 'tag')} {verb(len(rows), 'is', 'are')} written in several ways"
        meaning = "Each spelling is learnt by itself, from fewer pictures."
        yield Finding(HARM, title, meaning, "Choose one; some may be meant.", rows, section="captions")
    for each in [each for each in tags.common if each.nearly][:MOST_FOLDERS]:
        rows = tuple((entries[number].name, "") for number in each.lacking)
        title = f"{counted(len(rows), 'caption')} in {each.folder or 'the folder'} without “{each.nearly}”"
        meaning = (
            f"It stands in {share(1 - len(rows) / each.captions)} of the folder's captions. If it is the word that "
            "calls the subject, these teach the subject without it."
        )
        yield Finding(NOTE, title, meaning, "Add it there, if it belongs to all.", rows, each.lacking, "captions")
    if tags.doubled:
        rows = tuple((entries[number].name, tag) for number, tag in tags.doubled)
        title = f"{counted(len(rows), 'caption')} {verb(len(rows), 'has', 'have')} a tag twice"
        yield Finding(NOTE, title, "It only takes room from other tags.", "Delete one of the two.", rows)


def shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 4]} ..."


def length_summary(captions: CaptionFindings, limit: int) -> str:
    lengths = sorted(captions.tokens.values())
    if not lengths:
        return ""
    return (
        f"Half of the captions have at most {counted(floor(median(lengths)), 'token')}, the longest {lengths[-1]:,}; "
        f"{limit} are read."
    )
