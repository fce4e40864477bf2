"""JSON text together with the line and column of every key and value in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from lora_trainer.config.problems import PresetError, shown
from lora_trainer.errors import did_you_mean

LARGEST_BYTES = 4 * 2**20  # a preset is a page of text; a checkpoint given by mistake is not read into memory
DEEPEST = 64

JsonPath = tuple["str | int", ...]  # () is the whole document, ("network_g", "scales", 0) a number deep inside

_JSON = json.JSONDecoder()
_BLANKS = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_WORD = re.compile(r"[^\s,:{}\[\]\"]+")
_WORDS = {"true": True, "false": False, "null": None}
_MEANT = {"True": "true", "False": "false", "None": "null", "TRUE": "true", "FALSE": "false", "NULL": "null"}
_NOT_FINITE = {"NaN", "Infinity", "-Infinity", "nan", "inf", "-inf"}
_STRAY = {
    "'": 'a single quote; JSON wants double quotes: "..."',
    "\u201c": 'a curly quote; JSON wants straight ones: "..."',
    "\u201d": 'a curly quote; JSON wants straight ones: "..."',
    "/": "a comment; JSON has none, so delete it",
    "#": "a comment; JSON has none, so delete it",
    "\u00a0": "a non-breaking space; type an ordinary one",
}
_STRING_FAULTS = (
    ("Invalid \\", 'found a single backslash; write it twice ("C:\\\\models") or use / instead'),
    (
        "Invalid control",
        'found a line break or tab inside the text; close it with " on the same line, or write \\n or \\t',
    ),
    ("Unterminated", 'found text that is never closed with "'),
)


@dataclass(frozen=True)
class Source:
    """A parsed document; offsets are counted in characters from the start of its text.

    Of each key there is where it starts, of each value where it starts and where what follows it does.
    """

    name: str
    text: str
    value: object
    keys: dict[JsonPath, int]
    values: dict[JsonPath, int]
    ends: dict[JsonPath, int]

    def key_place(self, path: JsonPath) -> str:
        """`name:line:col` of a key."""
        return _place(self.name, self.text, self.keys[path])

    def value_place(self, path: JsonPath) -> str:
        """`name:line:col` of a value."""
        return _place(self.name, self.text, self.values[path])


def read_json(path: Path) -> Source:
    """Read a UTF-8 file, with or without a byte order mark. Raises PresetError for everything that is wrong with it."""
    return parse_json(str(path), decoded(path, bytes_of(path)))


def parse_json(name: str, text: str) -> Source:
    """Parse JSON text; `name` is how messages call it. Raises PresetError, with every duplicate key at once."""
    scanner = _Scanner(text)
    try:
        value = scanner.document()
    except _Fault as fault:
        scanner.faults.append(fault)
    if scanner.faults:
        raise PresetError(*(f"{_place(name, text, fault.offset)} {fault.found}" for fault in scanner.faults))
    return Source(name, text, value, scanner.keys, scanner.values, scanner.ends)


def bytes_of(path: Path) -> bytes:
    """What the file holds. Raises PresetError when it cannot be read or is far too large."""
    try:
        if path.is_dir():
            raise PresetError(f"{path}: this is a folder; name the .json file in it")
        if path.stat().st_size > LARGEST_BYTES:
            raise PresetError(f"{path}: more than {LARGEST_BYTES // 2**20} MB, which is no preset; name a .json file")
        return path.read_bytes()
    except FileNotFoundError:
        siblings = [str(file) for file in path.parent.glob("*.json")]
        raise PresetError(f"{path}: there is no such file{did_you_mean(str(path), siblings)}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PresetError(f"{path}: cannot be read ({reason})") from None


def decoded(path: Path, data: bytes) -> str:
    """The text without its byte order mark. Raises PresetError for what is not UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PresetError(f"{path}:1:1 the file is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mark = 3 if data.startswith(b"\xef\xbb\xbf") else 0
        before = data[mark : mark + error.start].decode("utf-8", errors="replace")
        place = _place(str(path), before, len(before))
        raise PresetError(f"{place} the file is not UTF-8 from here on; save it as UTF-8") from None


def _place(name: str, text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    return f"{name}:{line}:{column}"


class _Fault(Exception):
    def __init__(self, offset: int, found: str) -> None:
        super().__init__(found)
        self.offset = offset
        self.found = found


@dataclass
class _Scanner:
    """A descent over the text; `at` is the offset of the next character to read."""

    text: str
    at: int = 0
    keys: dict[JsonPath, int] = field(default_factory=dict)
    values: dict[JsonPath, int] = field(default_factory=dict)
    ends: dict[JsonPath, int] = field(default_factory=dict)
    faults: list[_Fault] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)

    def document(self) -> object:
        if not self.peek():
            raise _Fault(0, "the file is empty; a preset is a JSON object: { ... }")
        value = self.value(())
        if self.peek():
            raise _Fault(self.at, self.stray("text after the end of the preset; delete it, or the bracket before it"))
        return value

    def value(self, path: JsonPath) -> object:
        first = self.expect("a value")
        self.values[path] = self.at
        value = self.any_value(first, path)
        self.ends[path] = self.at
        return value

    def any_value(self, first: str, path: JsonPath) -> object:
        if first == '"':
            return self.string()
        if first not in "{[":
            return self.word()
        if len(self.opened) == DEEPEST:
            raise _Fault(self.at, f"found brackets nested more than {DEEPEST} deep")
        self.opened.append(self.at)
        self.at += 1
        value = self.members(path) if first == "{" else self.items(path)
        self.opened.pop()
        return value

    def members(self, path: JsonPath) -> dict[str, object]:
        found: dict[str, object] = {}
        if self.closes("}"):
            return found
        while True:
            if self.expect('a key or "}"') != '"':
                raise _Fault(self.at, self.stray(f"expected a key in double quotes, found {self.peek()}"))
            start = self.at
            key = self.string()
            where = (*path, key)
            if where in self.keys:
                earlier = self.text.count("\n", 0, self.keys[where]) + 1
                self.faults.append(_Fault(start, f"{key}: given twice, first in line {earlier}; keep one of the two"))
            self.keys[where] = start
            if self.expect('":"') != ":":
                raise _Fault(self.at, f"expected : after the key {shown(key)}, found {self.peek()}")
            self.at += 1
            found[key] = self.value(where)
            if self.ended_by("}"):
                return found

    def items(self, path: JsonPath) -> list[object]:
        found: list[object] = []
        if self.closes("]"):
            return found
        while True:
            found.append(self.value((*path, len(found))))
            if self.ended_by("]"):
                return found

    def ended_by(self, bracket: str) -> bool:
        """Read what stands after a member: a comma and then another member, or the closing bracket."""
        after_value = self.at
        if self.closes(bracket):
            return True
        if self.expect(f'"," or "{bracket}"') != ",":
            if self.peek() in "]}":
                raise _Fault(self.at, f"found {self.peek()} where {bracket} must close the bracket before it")
            place = self.at if self.peek() in _STRAY else after_value
            raise _Fault(place, self.stray("a comma is missing here"))
        comma = self.at
        self.at += 1
        if self.closes(bracket):
            raise _Fault(comma, f"a comma before the closing {bracket}; delete it")
        return False

    def closes(self, bracket: str) -> bool:
        if self.peek() != bracket:
            return False
        self.at += 1
        return True

    def peek(self) -> str:
        """The next character that is not blank, or an empty text at the end."""
        blanks = _BLANKS.match(self.text, self.at)
        self.at = blanks.end() if blanks else self.at
        return self.text[self.at : self.at + 1]

    def expect(self, wanted: str) -> str:
        found = self.peek()
        if not found:
            bracket = self.opened[-1]
            line = self.text.count("\n", 0, bracket) + 1
            raise _Fault(self.at, f"the file ends inside the {self.text[bracket]} of line {line}; {wanted} is missing")
        return found

    def stray(self, otherwise: str) -> str:
        """What to say of the next character, if it is one that people often type by mistake."""
        habit = _STRAY.get(self.peek())
        return f"found {habit}" if habit else otherwise

    def string(self) -> str:
        start = self.at
        try:
            text, self.at = _JSON.raw_decode(self.text, start)
        except json.JSONDecodeError as error:
            found = next(
                (say for begins, say in _STRING_FAULTS if error.msg.startswith(begins)),
                "found text that cannot be read",
            )
            raise _Fault(start if error.msg.startswith("Unterminated") else error.pos, found) from None
        if re.search("[\ud800-\udfff]", text):
            raise _Fault(start, "found half of a two-part \\u character; write the character itself")
        return str(text)

    def word(self) -> object:
        start, first = self.at, self.text[self.at]
        match = _WORD.match(self.text, start)
        word = match.group() if match else first
        self.at = start + len(word)
        if word in _WORDS:
            return _WORDS[word]
        if _NUMBER.fullmatch(word):
            return _number(start, word)
        if word in _MEANT:
            raise _Fault(start, f"found {word}; JSON writes {_MEANT[word]}")
        if word in _NOT_FINITE:
            raise _Fault(start, f"found {word}, which is no number; write one")
        if first.isdigit() or first in "+-.":
            raise _Fault(start, f"found {word[:40]}, which is no JSON number (write 5, -1, 0.5 or 1e-4)")
        self.at = start
        raise _Fault(start, self.stray(f'found {word[:40]}; text goes in double quotes: "..."'))


def _number(start: int, word: str) -> int | float:
    if len(word) > 40:
        raise _Fault(start, "found a number of more than 40 characters")
    if not set(word) & set(".eE"):
        return int(word)
    number = float(word)
    if number in (float("inf"), float("-inf")):
        raise _Fault(start, f"found {word}, which is too large for a number")
    return number
