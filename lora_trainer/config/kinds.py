"""The kinds of value a key may have, each with every spelling that the kohya_ss GUI writes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le, MultipleOf
from pydantic import GetCoreSchemaHandler, SecretStr
from pydantic_core import core_schema

from lora_trainer.config.arguments import parse_arguments, split_arguments
from lora_trainer.config.problems import one_of

LARGEST_SEED = 2**32 - 1
LARGEST_SIDE_PX = 16384

_WHOLE = re.compile(r"\s*([+-]?\d{1,18})(?:\.0*)?\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_SIZE = re.compile(r"\s*(\d{1,5})\s*(?:,\s*(\d{1,5})\s*)?", re.ASCII)
_CLASS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NO_FILE_NAME = re.compile(r'[<>:"/\\|?*\x00-\x1f]|[. ]$|^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)', re.IGNORECASE)


class Unfit(ValueError):
    """A value of the wrong kind; the text, if any, is the cure, in place of the list of what is legal."""


@dataclass(frozen=True)
class Reads:
    """Placed in an annotation: how the value is read, what it is called, and its JSON Schema."""

    noun: str
    read: Callable[[object], object]
    schema: Mapping[str, object] = field(hash=False)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))


@dataclass(frozen=True)
class Component:
    """A part that is chosen by name and has options of its own: `{"type": "span", "norm": false}`.

    The options are checked by whoever builds the part, since only that knows them.
    """

    type: str
    options: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        return {"type": self.type, **self.options}


@dataclass(frozen=True)
class AnyCase:
    """Placed beside a Literal: upper and lower case do not matter, and "75" stands for 75.

    With `or_class` the dotted path of any Python class is legal too.
    """

    or_class: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        by_folded = {str(choice).casefold(): choice for choice in get_args(source)}

        def read(value: object, choose: Callable[[object], object]) -> object:
            if self.or_class and isinstance(value, str) and _CLASS.fullmatch(value.strip()):
                return value.strip()
            return choose(value if isinstance(value, bool) else by_folded.get(_plain(value).casefold(), value))

        return core_schema.no_info_wrap_validator_function(read, handler(source))


def _plain(value: object) -> str:
    """A whole number without its decimal point, everything else as text."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    whole = _WHOLE.fullmatch(text)
    return str(int(whole.group(1))) if whole else text


def _switch(value: object) -> bool:
    words = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(value, (bool, int, float, str)) and _plain(value).casefold() in words:
        return words[_plain(value).casefold()]
    raise Unfit


def _recomputed(value: object) -> object:
    word = str(value).strip().casefold()
    return word if word in ("auto", "feed_forward", "geglu") else _switch(value)


def _whole_or_auto(value: object) -> int | str:
    if isinstance(value, str) and value.strip().casefold() == "auto":
        return "auto"
    if (number := _whole(value)) < 1:
        raise Unfit
    return number


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    match = _WHOLE.fullmatch(value) if isinstance(value, str) else None
    if match:
        return int(match.group(1))
    raise Unfit


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise Unfit
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise Unfit("write the decimal point as a point: 0.5" if re.fullmatch(r"\s*\d+,\d+\s*", value) else "")
    if not math.isfinite(float(value)):
        raise Unfit
    return float(value)


def _size(value: object) -> tuple[int, int]:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        sides = (_whole(value[0]), _whole(value[1]))
    else:
        match = _SIZE.fullmatch(_plain(value)) if isinstance(value, (int, float, str)) else None
        if not match:
            raise Unfit
        sides = (int(match.group(1)), int(match.group(2) or match.group(1)))
    if not all(8 <= side <= LARGEST_SIDE_PX for side in sides):
        raise Unfit(f"each side must be from 8 to {LARGEST_SIDE_PX} pixels")
    return sides


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise Unfit


def _path(value: object) -> str:
    if _CONTROL.search(_text(value)):
        raise Unfit('a path holds no tabs or line breaks; write each backslash twice ("C:\\\\new") or use /')
    text = _text(value).strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' else text  # as Windows copies a path


def _file_name(value: object) -> str:
    name = _text(value).strip()
    if _NO_FILE_NAME.search(name):
        raise Unfit('a file name cannot hold < > : " / \\ | ? *, end with a point or be a Windows device')
    return name


def _secret(value: object) -> SecretStr:
    return value if isinstance(value, SecretStr) else SecretStr(_text(value).strip())


def _arguments(value: object) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)):
        words = tuple(word for item in value for word in split_arguments(_text(item)))
    else:
        words = split_arguments(_text(value))
    try:
        parse_arguments(words)
    except ValueError as error:
        raise Unfit(str(error)) from None
    return words


def _component(value: object) -> Component:
    if isinstance(value, Component):
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str) or not value["type"].strip():
        raise Unfit
    return Component(value["type"].strip(), {name: option for name, option in value.items() if name != "type"})


def _components(value: object) -> tuple[Component, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(_component(item) for item in value)
    raise Unfit


def _named_components(value: object) -> tuple[tuple[str, Component], ...]:
    if isinstance(value, tuple):
        return value
    if isinstance(value, Mapping):
        return tuple((str(name), _component(item)) for name, item in value.items())
    raise Unfit


def _numbers(value: object) -> tuple[float, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(_number(item) for item in value)
    raise Unfit


def _span(value: object) -> tuple[float, float]:
    numbers = _numbers(value)
    if len(numbers) != 2:
        raise Unfit
    if numbers[0] > numbers[1]:
        raise Unfit("write the smaller number first")
    return numbers[0], numbers[1]


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value.strip(),)
    if isinstance(value, (list, tuple)):
        return tuple(_text(item).strip() for item in value)
    raise Unfit


def _paths(value: object) -> tuple[str, ...]:
    return tuple(_path(word) for word in _words(value))


_TEXT = {"type": ["string", "null"]}
_COMPONENT = {"type": ["object", "null"], "properties": {"type": {"type": "string"}}, "required": ["type"]}
_NUMBERS = {"type": ["array", "null"], "items": {"type": "number"}}
_WORDS = {"type": ["string", "array", "null"], "items": {"type": "string"}}
_NUMBER_TEXT = r"^\s*([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)?\s*$"

Switch = Annotated[
    bool,
    Reads(
        "true or false",
        _switch,
        {
            "type": ["boolean", "integer", "string", "null"],
            "minimum": 0,
            "maximum": 1,
            "pattern": r"^\s*([Tt]rue|[Ff]alse|0|1)?\s*$",
        },
    ),
]
Recomputed = Annotated[  # how much is forgotten and computed again, from nothing (false) to everything (true)
    bool | Literal["auto", "feed_forward", "geglu"],
    Reads(
        "true, false, geglu, feed_forward or auto",
        _recomputed,
        {
            "type": ["boolean", "integer", "string", "null"],
            "minimum": 0,
            "maximum": 1,
            "pattern": r"^\s*([Tt]rue|[Ff]alse|0|1|geglu|feed_forward|auto)?\s*$",
        },
    ),
]
Whole = Annotated[
    int,
    Reads(
        "a whole number",
        _whole,
        {"type": ["integer", "string", "null"], "pattern": r"^\s*([+-]?\d+(\.0*)?)?\s*$"},
    ),
]
PositiveOrAuto = Annotated[
    int | Literal["auto"],
    Reads(
        "a whole number from 1 on, or auto",
        _whole_or_auto,
        {"type": ["integer", "string", "null"], "minimum": 1, "pattern": r"^\s*(\+?0*[1-9]\d*(\.0*)?|[Aa]uto)?\s*$"},
    ),
]
Number = Annotated[float, Reads("a number", _number, {"type": ["number", "string", "null"], "pattern": _NUMBER_TEXT})]
Text = Annotated[str, Reads("text", _text, _TEXT)]
PathText = Annotated[str, Reads("a path", _path, _TEXT)]
FileName = Annotated[str, Reads("a file name", _file_name, _TEXT)]
Secret = Annotated[SecretStr, Reads("text that is kept secret", _secret, _TEXT)]
Size = Annotated[
    tuple[int, int],
    Reads(
        'a size in pixels: 512 or "width,height"',
        _size,
        {"type": ["integer", "string", "array", "null"], "pattern": r"^\s*(\d+\s*(,\s*\d+\s*)?)?$"},
    ),
]
Arguments = Annotated[tuple[str, ...], Reads("name=value words", _arguments, {"type": ["string", "array", "null"]})]

Part = Annotated[Component, Reads('an object with a "type": {"type": "...", options}', _component, _COMPONENT)]
Parts = Annotated[
    tuple[Component, ...],
    Reads('a list of objects with a "type" each', _components, {"type": ["array", "null"], "items": _COMPONENT}),
]
NamedParts = Annotated[
    tuple[tuple[str, Component], ...],
    Reads(
        'an object of objects with a "type" each',
        _named_components,
        {"type": ["object", "null"], "additionalProperties": _COMPONENT},
    ),
]
Anything = Annotated[Any, Reads("anything", lambda value: value, {})]  # of keys that have no effect
Numbers = Annotated[tuple[float, ...], Reads("a list of numbers", _numbers, _NUMBERS)]
Span = Annotated[
    tuple[float, float],
    Reads("the smallest and the largest number: [a, b]", _span, {**_NUMBERS, "minItems": 2, "maxItems": 2}),
]
Words = Annotated[tuple[str, ...], Reads("a text or a list of texts", _words, _WORDS)]
Paths = Annotated[tuple[str, ...], Reads("a path or a list of paths", _paths, _WORDS)]

Count = Annotated[Whole, Ge(0)]
Positive = Annotated[Whole, Ge(1)]
Seed = Annotated[Whole, Ge(0), Le(LARGEST_SEED)]
Share = Annotated[Number, Ge(0), Le(1)]
Percent = Annotated[Number, Ge(0), Le(100)]
NotNegative = Annotated[Number, Ge(0)]


def legal(annotation: Any) -> str:
    """What a value of this kind may be, as the end of a sentence: "a number from 0 to 1"."""
    if names := choices(annotation):
        by_path = AnyCase(or_class=True) in _traits(annotation)
        return one_of(names) + (", or the dotted path of a class" if by_path else "")
    bounds = {type(trait): trait for trait in _traits(annotation)}
    words = [next(trait.noun for trait in bounds.values() if isinstance(trait, Reads))]
    if MultipleOf in bounds:
        words.append(f"that is a multiple of {bounds[MultipleOf].multiple_of}")
    if Gt in bounds:
        words.append(f"above {bounds[Gt].gt}")
    if Ge in bounds:
        words.append(f"from {bounds[Ge].ge}" + (f" to {bounds[Le].le}" if Le in bounds else " upwards"))
    return " ".join(words)


def choices(annotation: Any) -> tuple[str | int, ...]:
    """The values of a Literal; empty for every other kind."""
    listed = any(isinstance(trait, AnyCase) for trait in _traits(annotation))
    return get_args(get_args(annotation)[0]) if listed else ()


def as_json(value: object) -> object:
    """A field's value as JSON can hold it; a secret becomes stars."""
    if isinstance(value, SecretStr):
        return str(value)
    if isinstance(value, Component):
        return value.as_json()
    if isinstance(value, tuple) and value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        return {name: as_json(item) for name, item in value}
    return [as_json(item) for item in value] if isinstance(value, tuple) else value


def is_text(annotation: Any) -> bool:
    return get_args(annotation)[0] in (str, SecretStr)


def is_secret(annotation: Any) -> bool:
    return bool(get_args(annotation)[0] is SecretStr)


def value_schema(annotation: Any) -> dict[str, object]:
    """The JSON Schema of a value, the GUI's texts for numbers and empty texts for "unset" included."""
    if names := choices(annotation):
        as_text = [str(name) for name in names if not isinstance(name, str)]
        listed: dict[str, object] = {"enum": [*names, *as_text, "", None]}
        by_path = AnyCase(or_class=True) in _traits(annotation)
        return {"anyOf": [listed, {"type": ["string"], "pattern": f"^{_CLASS.pattern}$"}]} if by_path else listed
    schema: dict[str, object] = {}
    for trait in _traits(annotation):
        if isinstance(trait, Reads):
            schema |= trait.schema
        elif isinstance(trait, Ge):
            schema["minimum"] = trait.ge
        elif isinstance(trait, Gt):
            schema["exclusiveMinimum"] = trait.gt
        elif isinstance(trait, Le):
            schema["maximum"] = trait.le
        elif isinstance(trait, MultipleOf):
            schema["multipleOf"] = trait.multiple_of
    return schema


def _traits(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:]
