"""What the page may ask for: the preset as it is, as it would be after changes, and to save it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.config.json_source import JsonPath
from lora_trainer.config.problems import PresetError
from lora_trainer.config.trainers import trainer_named
from lora_trainer.editor.answers import answer, trainer_meant
from lora_trainer.editor.changes import append, put, remove, rename
from lora_trainer.editor.document import ABSENT, Content, Document
from lora_trainer.editor.form import TRAINED, order_of
from lora_trainer.errors import Refusal

_VALUE_PLACE = re.compile(r"^the value:\d+:\d+ ")


@dataclass(frozen=True)
class Change:
    """What to do at which place of the text: put, remove, rename or append, and for some with what."""

    do: str
    path: JsonPath
    written: str


@dataclass(frozen=True)
class Session:
    """One preset; the page holds the text with its changes, so that every answer is a function of what it sends."""

    document: Document
    trainer: str = ""

    @property
    def path(self) -> Path:
        return self.document.path

    def state(self) -> dict[str, object]:
        """The file, for a page that begins."""
        content = self.document.read()
        text = content.text
        if content.version == ABSENT and self.trainer:
            text = new_text(self.trainer, self.path)
        return {
            "name": self.path.name,
            "folder": str(self.path.resolve().parent),
            "command": f"accelerate launch -m lora_trainer --preset {quoted(str(self.path))}",
            "trainers": TRAINED,
            "saved": content.text,
            "version": content.version,
            **self.look(text, ()),
        }

    def look(self, text: str, changes: Sequence[object]) -> dict[str, object]:
        """The text after the changes, with everything there is to say about it.

        A change to a value that is no JSON yet is not made and told in `not_taken`. Raises Refusal.
        """
        order = order_of(trainer_meant(self.path, text)) if changes else ()
        not_taken = []
        for change in map(_change, changes):
            try:
                text = changed(text, change, order)
            except PresetError as error:
                said_of_it = _VALUE_PLACE.sub("", error.problems[0])
                not_taken.append({"path": change.path, "text": f"{change.path[-1]}: no JSON yet: {said_of_it}"})
        return {"text": text, "not_taken": not_taken, **answer(self.path, text)}

    def begin(self, trainer: str) -> dict[str, object]:
        """A new preset for the trainer. Raises Refusal for one that does not exist."""
        return self.look(new_text(trainer, self.path), ())

    def save(self, text: str, version: str, over_changes: bool) -> Content:
        return self.document.write(text, version, over_changes=over_changes)


def _change(asked: object) -> Change:
    """Raises Refusal for what no page would ask."""
    if isinstance(asked, Mapping):
        steps, what, written = asked.get("path"), asked.get("do"), asked.get("written", "")
        path = tuple(steps) if isinstance(steps, list) else ()
        known = path and all(type(step) in (str, int) for step in path)
        if known and isinstance(what, str) and isinstance(written, str):
            return Change(what, path, written)
    raise Refusal("the page asks for a change that is none; reload it")


def changed(text: str, change: Change, order: Sequence[str]) -> str:
    """The text after one change. Raises Refusal, and PresetError where something written is no JSON."""
    try:
        if change.do == "put":
            return put(text, change.path, change.written, order)
        if change.do == "remove":
            return remove(text, change.path)
        if change.do == "rename":
            return rename(text, change.path, change.written)
        if change.do == "append":
            return append(text, change.path, change.written)
    except KeyError:
        pass
    where = ".".join(map(str, change.path))
    raise Refusal(f"the page asks for {change.do} at {where}, where it cannot be done; reload the page")


def new_text(trainer: str, path: Path) -> str:
    """What every preset has; the keys that are missing are then told."""
    trainer_named(trainer)
    name = path.stem.rstrip(". ") or "my_run"
    keys = {"trainer": trainer, "about": "", "output_dir": f"output/{name}", "output_name": name}
    return json.dumps(keys, indent=2, ensure_ascii=False) + "\n"


def quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word
