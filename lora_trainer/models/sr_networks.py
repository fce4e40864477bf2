"""Building an upscaler by its name, with its options checked against spandrel's constructor."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any

import torch
from torch import nn

from lora_trainer.errors import Refusal, did_you_mean
from lora_trainer.models.sr_families import ABSENT, ALIASES, NETWORKS, RGB, Family
from lora_trainer.models.sr_traps import Draft, Problem, look_through

__all__ = ["NETWORKS", "Problem", "SrNetwork", "build_network", "check_network_options", "plain_options", "rebuilt"]

_REQUIRED = inspect.Parameter.empty
_SAME_LENGTH = ("depth", "depths", "num_heads", "num_heads_window", "num_heads_stripe")  # one number for each stage


@dataclass(frozen=True)
class SrNetwork:
    """An upscaler and what must be known to train it, to save it and to call it.

    `options` are all the constructor's values as JSON has them. The sides of a low-resolution picture must be multiples
    of `size_multiple` and at least `min_size` pixels when the bare module is called. With `one_at_a_time` the module
    takes one picture per call in eval mode.
    """

    module: nn.Module
    type: str
    architecture: str  # spandrel's id
    network: str  # the class in spandrel's package of that id
    scale: int
    options: Mapping[str, Any]
    size_multiple: int
    min_size: int
    unsafe_fp16: bool
    unsafe_bf16: bool
    one_at_a_time: bool
    notes: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        return NETWORKS[self.type][0]

    def trained_weights(self) -> dict[str, nn.Parameter]:
        """The parameters by name without those that no gradient ever reaches."""
        return {name: weight for name, weight in self.module.named_parameters() if not self.is_unused(name)}

    def is_unused(self, name: str) -> bool:
        return bool(self.family.unused) and re.search(self.family.unused, name) is not None

    def twin(self) -> nn.Module:
        """Another module of the same make, on the CPU, with weights of its own."""
        return rebuilt(self.type, self.network, self.options)


def check_network_options(type: str, options: Mapping[str, object], scale: int) -> list[Problem]:
    """Everything that is wrong with a `network_g`; the paths are below that key. Builds no network."""
    _, _, problems = _draft(type, options, scale)
    return problems


def overflows_in_fp16(type: str, scale: int, options: Mapping[str, object]) -> bool:
    """Whether spandrel knows the architecture to need bf16 or float32."""
    _, draft, _ = _draft(type, options, scale)
    return draft is not None and not draft.fp16


def build_network(type: str, scale: int, options: Mapping[str, object]) -> SrNetwork:
    """An upscaler with fresh weights from the global generator. Raises Refusal."""
    name, draft, problems = _draft(type, options, scale)
    if problems or draft is None:
        raise Refusal(*(f"network_g {'.'.join(problem.path)}: {problem.text}" for problem in problems))
    family = draft.family
    try:
        module = _made(family, draft.network, draft.values)
    except (AssertionError, ValueError, TypeError, KeyError, IndexError, RuntimeError, NotImplementedError) as error:
        options_text = ", ".join(f"{option} {options[option]}" for option in options) or "its defaults"
        raise Refusal(
            f"network_g: {type} cannot be built {scale}x with {options_text} ({error}); change these options"
        ) from error
    return SrNetwork(
        module,
        name,
        family.architecture,
        draft.network,
        scale,
        plain_options(module),
        draft.multiple_of,
        draft.minimum_px,
        unsafe_fp16=not draft.fp16,
        unsafe_bf16=False,  # spandrel knows of none
        one_at_a_time=family.one_at_a_time,
        notes=tuple(draft.notes),
    )


def _network_class(architecture: str, network: str) -> type[nn.Module]:
    """A class of spandrel. All its constructors take keywords only and record them."""
    found: type[nn.Module] = getattr(importlib.import_module(f"spandrel.architectures.{architecture}"), network)
    return found


def rebuilt(type: str, network: str, options: Mapping[str, Any]) -> nn.Module:
    """The module of a name in the table and all its constructor's values, on the CPU, with weights of its own."""
    with torch.random.fork_rng(devices=[]):
        return _made(NETWORKS[type][0], network, options)


def _made(family: Family, network: str, values: Mapping[str, Any]) -> nn.Module:
    module = _network_class(family.architecture, network)(**values)
    if family.returns_more:
        module.register_forward_hook(_first_output)
    return module


def _first_output(module: nn.Module, inputs: object, output: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output[0]


def plain_options(module: nn.Module) -> dict[str, Any]:
    """The constructor's values that JSON can hold; the others are classes and functions that nobody sets."""
    recorded = typing.cast("Mapping[str, object]", module.hyperparameters)
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in recorded.items()}
    return {name: value for name, value in listed.items() if isinstance(value, (bool, int, float, str, list, NoneType))}


def _draft(type: str, options: Mapping[str, object], scale: int) -> tuple[str, Draft | None, list[Problem]]:
    """The network's name in the table, and its options with all defaults, looked through."""
    name = ALIASES.get(type.casefold(), type.casefold())
    if name not in NETWORKS:
        return name, None, [Problem(("type",), _no_such_type(type))]
    family, sizes = NETWORKS[name]
    known = _known_options(family)
    draft = Draft(
        family, family.network, scale, {}, frozenset(options), family.multiple_of, family.minimum_px, family.fp16
    )
    draft.values = {option: default for option, (default, _) in known.items() if default is not _REQUIRED}
    draft.values |= {**sizes, **{option: value for option, value in family.fixed.items() if option in draft.values}}
    for option, value in options.items():
        _take(draft, known, option, value)
    if family.scale_option:
        draft.values[family.scale_option] = scale
    if not draft.problems:
        _check_lengths(draft)
    look_through(draft)
    constructor = inspect.signature(_network_class(family.architecture, draft.network).__init__).parameters
    for channels in family.channels:
        if channels in constructor and channels not in draft.values:
            draft.values[channels] = RGB
    return name, draft, draft.problems


def _known_options(family: Family) -> dict[str, tuple[Any, Any]]:
    """Default and annotation of each option that a preset may set; without scale and channels."""
    constructor = _network_class(family.architecture, family.network).__init__
    try:
        hints = typing.get_type_hints(constructor)
    except (NameError, TypeError):
        hints = {}
    kept_back = ("self", family.scale_option, *family.channels, *family.hidden)
    found = {
        name: (parameter.default, hints.get(name, Any))
        for name, parameter in inspect.signature(constructor).parameters.items()
        if name not in kept_back and (parameter.default is _REQUIRED or not callable(parameter.default))
    }
    return found | {name: (default, type(default)) for name, default in family.extra.items()}


def _take(draft: Draft, known: Mapping[str, tuple[Any, Any]], option: str, value: object) -> None:
    """Put one option of the preset into the draft, or say what is wrong with it."""
    family, text = draft.family, ""
    if option == family.scale_option or option in ("scale", "upscale"):
        if value != draft.scale:
            text = f"the scale is set by the key scale, which is {draft.scale}; remove it here"
    elif option in family.channels:
        if value != RGB:
            text = f"found {value}; pictures have the 3 channels of RGB here, so remove it"
    elif option in family.fixed:
        if value != family.fixed[option]:
            standard = json.dumps(family.fixed[option])
            text = f"found {value}; other programs take files of {family.architecture} to have {standard}, so remove it"
    elif option not in known:
        text = f"{family.architecture} has no option {option}{did_you_mean(option, known)}"
        text += f"; there is {', '.join(sorted(known.keys() - family.fixed.keys()))}"
    elif value is not None or known[option][0] is None:  # null stands for the default
        value = family.other_words.get(value, value) if isinstance(value, str) else value
        text = _wrong_kind(value, draft.values.get(option, _REQUIRED), *_kinds(family, option, known[option][1]))
        if not text:
            draft.values[option] = list(value) if isinstance(value, (list, tuple)) else value
    if text:
        draft.problems.append(Problem((option,), text))


def _kinds(family: Family, option: str, hint: Any) -> tuple[tuple[object, ...], bool]:
    """The words that an option may be, if it is one of some; and whether a fraction is fine for it."""
    words = family.choices.get(option, ())
    union = typing.get_origin(hint) in (typing.Union, UnionType)
    alternatives = typing.get_args(hint) if union else (hint,)
    if not words:
        literals = [each for each in alternatives if typing.get_origin(each) is typing.Literal]
        words = tuple(word for each in literals for word in typing.get_args(each))
    return words, float in alternatives


def _wrong_kind(value: object, default: object, words: tuple[object, ...], fraction: bool) -> str:
    """Why the value cannot be meant, judged by the default's kind; "" where it can."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if words:
        return "" if value in words else f"found {value!r}; write {' or '.join(str(word) for word in words)}"
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else f"found {value!r}; write true or false"
    if isinstance(default, float) or (fraction and not isinstance(default, (list, tuple, str))):
        fits = whole or isinstance(value, float)
        return "" if fits else f"found {value!r}; write a number"
    if isinstance(default, int) or default is _REQUIRED:
        least = 1 if default is _REQUIRED or (isinstance(default, int) and default > 0) else 0
        return "" if whole and value >= least else f"found {value!r}; write a whole number from {least} upwards"  # type: ignore[operator]
    if isinstance(default, str):
        return "" if isinstance(value, str) else f"found {value!r}; write a text"
    if isinstance(default, (list, tuple)):
        return _wrong_list(value, default)
    return ""


def _wrong_list(value: object, default: list[Any] | tuple[Any, ...]) -> str:
    fraction = any(isinstance(element, float) for element in default)
    numbers, noun = ((int, float), "numbers") if fraction else ((int,), "whole numbers")
    fits = isinstance(value, (list, tuple)) and (
        None in default or all(isinstance(each, numbers) and not isinstance(each, bool) for each in value)
    )
    return "" if fits and value else f"found {value!r}; write a list of {noun}, as {list(default) or [2, 2]}"


def _check_lengths(draft: Draft) -> None:
    """Lists that hold a number for each stage must be equally long, and the channels divisible by the heads."""
    lists = {name: draft.values[name] for name in _SAME_LENGTH if isinstance(draft.values.get(name), (list, tuple))}
    if len({len(value) for value in lists.values()}) > 1:
        found = ", ".join(f"{option} has {len(value)}" for option, value in lists.items())
        given = next((option for option in lists if option in draft.given), "type")
        draft.refuse(given, f"the lists of stages differ in length ({found}); make them equally long")
    width, heads = draft.values.get("embed_dim"), lists.get("num_heads", ())
    if isinstance(width, int) and any(width % each for each in heads):
        given = "embed_dim" if "embed_dim" in draft.given else "num_heads"
        draft.refuse(given, f"embed_dim {width} cannot be shared among {list(heads)} heads; make it a multiple")


def _no_such_type(type: str) -> str:
    reason = ABSENT.get(type.casefold())
    names = ", ".join(dict.fromkeys(name.split("_")[0] for name in NETWORKS))
    if reason:
        return f"there is no {type} here: {reason}; choose one of {names}"
    nearest = did_you_mean(type.casefold(), [*NETWORKS, *ALIASES])
    return f"there is no architecture {type}{nearest or f'; choose one of {names}'}"
