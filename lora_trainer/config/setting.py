"""What a key says about itself: the one source of its check, its schema, its documentation and `--explain`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_type_hints

from lora_trainer.config.kinds import choices, legal
from lora_trainer.config.problems import one_of

UNSET = "unset"


@dataclass(frozen=True)
class Effect:
    """Whether a key does anything, why not, and the values besides its default that ask for nothing."""

    kind: Literal["real", "none", "later"] = "real"
    reason: str = ""
    neutral: tuple[object, ...] = ()
    told_with: str = ""


def no_effect(reason: str, *neutral: object, told_with: str = "") -> Effect:
    """Accepted; the run lists it with the reason, unless the key `told_with` is listed already."""
    return Effect("none", reason, neutral, told_with)


def not_yet(*neutral: object) -> Effect:
    """Refused unless the value is the default or one of these."""
    return Effect("later", "not supported yet", neutral)


@dataclass(frozen=True)
class Setting:
    """Everything about a key but its type and default.

    `about` says in the field's words what it does. `may_change` is true where a run may be continued with another
    value. `example` is what to write in place of a placeholder; a `required` key has no default. `old_names` maps each
    former key to what its values mean now (nothing: the same values), `old_values` each former value to the present
    one. `blank` is what an empty text means where that is not the default, `blank_note` what to say of an empty text.
    `later` lists choices that are refused.
    """

    about: str
    effect: Effect = Effect()
    may_change: bool = False
    required: bool = False
    example: str = ""
    old_names: Mapping[str, Mapping[object, object]] = field(default_factory=dict)
    old_values: Mapping[object, object] = field(default_factory=dict)
    blank: object = UNSET
    blank_note: str = ""
    later: tuple[str, ...] = ()
    key: str = ""


def setting(default: Any, about: str, **traits: Any) -> Any:
    """A dataclass field that knows its key's story; the traits are Setting's."""
    return field(default=default, metadata={"setting": Setting(about, **traits)})


@dataclass(frozen=True)
class Key:
    """A key as readers, schema and docs see it; `name` stands in the JSON, `field` in the dataclass."""

    name: str
    field: str
    group: str
    annotation: Any
    default: object
    setting: Setting

    @property
    def effect(self) -> Effect:
        return self.setting.effect

    @property
    def legal(self) -> str:
        """What may be written, without the choices that are refused so far."""
        if not self.setting.later:
            return legal(self.annotation)
        return one_of(name for name in choices(self.annotation) if name not in self.setting.later)

    def is_neutral(self, value: object) -> bool:
        """Whether the value asks for nothing beyond what happens without the key."""
        return value == self.default or value in self.effect.neutral


def keys_of(preset: type[Any]) -> Mapping[str, Key]:
    """The keys of a preset class by their JSON name, in the order of its groups."""
    hints = get_type_hints(preset, include_extras=True)
    fields = {each.name: each for each in dataclasses.fields(preset)}
    keys: dict[str, Key] = {}
    for owner in preset.__mro__:
        for name in inspect.get_annotations(owner):
            if name in fields:
                story: Setting = fields[name].metadata["setting"]
                key = Key(story.key or name, name, group_name(owner), hints[name], fields[name].default, story)
                keys.setdefault(key.name, key)
    return MappingProxyType(keys)


def group_name(owner: type) -> str:
    """The heading of the keys that a class declares: `NoiseAndLoss` is "noise and loss"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", owner.__name__).lower()
