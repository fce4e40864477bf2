"""What is to be known of captions: which are missing, broken, too long or the same, and which files belong to none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.data.doctor.dataset import MASK, PARTNER, CaptionRules, Entry
from lora_trainer.data.doctor.tags import TagFindings, tag_findings
from lora_trainer.data.folders import BYTE_ORDER_MARK

MANY_ALIKE = 3  # pictures with one caption


@dataclass(frozen=True)
class LongCaption:
    """`cut` is what no step reads."""

    number: int
    tokens: int
    cut: str


@dataclass(frozen=True)
class CaptionFindings:
    """All numbers are those of entries. `undecodable` and `empty` say where; `tokens` are by entry; `shared` are texts
    that several pictures have, the most frequent first."""

    captioned: int
    missing: tuple[int, ...]
    empty: tuple[tuple[int, str], ...]
    undecodable: tuple[tuple[int, str], ...]
    marked: tuple[int, ...]
    long: tuple[LongCaption, ...]
    shared: tuple[tuple[str, tuple[int, ...]], ...]
    tokens: dict[int, int]
    tags: TagFindings


def caption_findings(entries: Sequence[Entry], rules: CaptionRules) -> CaptionFindings:
    missing, empty, undecodable, marked = [], [], [], []
    tokens: dict[int, int] = {}
    long = []
    texts: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        written = entry.caption
        if written is None or entry.use in (PARTNER, MASK):
            continue
        state = FileState() if written.file is None else file_state(written.file)
        if written.file is None and written.expected:
            missing.append(number)
        marked += [number] if state.marked else []
        if state.undecodable:
            undecodable.append((number, state.undecodable))
        elif state.empty and not written.text.strip(" ,"):
            empty.append((number, state.empty))
        elif written.file is not None or not written.expected:
            texts.setdefault(written.text, []).append(number)
        worst = max((rules.measure(text) for text in written.texts or (written.text,)), default=(0, ""))
        tokens[number] = worst[0]
        if worst[0] > rules.limit:
            long.append(LongCaption(number, *worst))
    shared = [(text, tuple(numbers)) for text, numbers in texts.items() if text and len(numbers) >= MANY_ALIKE]
    return CaptionFindings(
        sum(len(numbers) for numbers in texts.values()), tuple(missing), tuple(empty), tuple(undecodable),
        tuple(marked), tuple(sorted(long, key=lambda each: -each.tokens)),
        tuple(sorted(shared, key=lambda each: -len(each[1]))), tokens, tag_findings(entries, texts, rules.separator),
    )  # fmt: skip


@dataclass(frozen=True)
class FileState:
    """What a caption file's bytes show: where it is not UTF-8, how it is empty, whether it begins with a mark."""

    undecodable: str = ""
    empty: str = ""
    marked: bool = False


def file_state(file: Path) -> FileState:
    try:
        data = file.read_bytes()
    except OSError as error:
        return FileState(f"it cannot be read ({error.strerror})")
    marked = data.startswith(BYTE_ORDER_MARK)
    text = data.removeprefix(BYTE_ORDER_MARK)
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        guess = "; it looks like UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        return FileState(f"line {line}, byte {text[error.start]:#04x} at position {error.start}{guess}")
    if not decoded.strip(" ,\r\n\t"):
        return FileState(empty="the file is empty", marked=marked)
    if not next(iter(decoded.splitlines()), "").strip():
        return FileState(empty="the first line is empty", marked=marked)
    return FileState(marked=marked)
