"""The optimizers by the names that presets use, and how their state is restored exactly."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lora_trainer.engine.joined_optimizer import JoinedOptimizer, single_optimizers
from lora_trainer.errors import Refusal, did_you_mean
from lora_trainer.quick_imports import quick_imports


@dataclass(frozen=True)
class Group:
    """Weights that share a learning rate; the name appears in logs ("unet", "text_encoder").

    They are trained in the optimizer steps before `until`, to the end without it.
    """

    name: str
    rate: float
    weights: Mapping[str, nn.Parameter]
    until: int | None = None


Groups = list[dict[str, Any]]
Build = Callable[[Any, Groups, dict[str, Any]], torch.optim.Optimizer]
EXTRA = "lora_trainer[optimizers]"
ANY_WORD = inspect.Parameter.VAR_KEYWORD
BUILD_ERRORS = (TypeError, ValueError, RuntimeError, AssertionError, AttributeError, LookupError)


def _plainly(found: Any, groups: Groups, options: dict[str, Any]) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = found(groups, **options)
    return optimizer


def _fused(found: Any, groups: Groups, options: dict[str, Any]) -> torch.optim.Optimizer:
    """One kernel for all weights, which can also skip a bad step without the host's help."""
    other = options.get("foreach") or options.get("differentiable")
    return _plainly(found, groups, options if other else {"fused": True, **options})


def _adafactor(found: Any, groups: Groups, options: dict[str, Any]) -> torch.optim.Optimizer:
    if options.get("relative_step", True):  # it finds its own rate, and refuses to be given one
        groups = [{**group, "lr": None} for group in groups]
    return _plainly(found, groups, options)


def _with_a_rate(found: Any, groups: Groups, options: dict[str, Any]) -> torch.optim.Optimizer:
    """For those that want one rate more beside those of their groups."""
    return _plainly(found, groups, {"lr": groups[0]["lr"], **options})


@dataclass(frozen=True)
class Kind:
    """Where an optimizer is found and how it is made."""

    path: str  # of the class, whose signature says what it takes
    install: str = ""  # what pip must be told when a package is missing
    build: Build = _plainly
    defaults: Mapping[str, Any] = field(default_factory=dict)
    one_rate: bool = False  # it estimates a rate for all groups together
    instead: str = ""  # what does nearly the same without the package

    def find(self, name: str) -> Any:
        """The class. Raises Refusal."""
        module, _, last = self.path.rpartition(".")
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            way_out = f', or set it to "{self.instead}"' if self.instead else ""
            raise Refusal(
                f'the optimizer "{name}" needs the package {package}, which is not installed: '
                f"`pip install {self.install or package}`{way_out}"
            )
        try:
            with quick_imports() if package not in sys.modules else contextlib.nullcontext():
                return getattr(importlib.import_module(module), last)
        except (ImportError, OSError, RuntimeError) as error:
            raise Refusal(f'the optimizer "{name}" does not load: {error}') from error
        except AttributeError as error:
            names = dir(importlib.import_module(module))
            raise Refusal(f'the optimizer "{name}": {module} has no {last}{did_you_mean(last, names)}') from error


def _torch(name: str, build: Build = _plainly, **defaults: Any) -> Kind:
    return Kind(f"torch.optim.{name}", build=build, defaults=defaults)


def _bitsandbytes(name: str, instead: str, build: Build = _plainly, **defaults: Any) -> Kind:
    return Kind(f"bitsandbytes.optim.{name}", build=build, defaults=defaults, instead=instead)


def _collected(name: str) -> Kind:
    return Kind(f"pytorch_optimizer.{name}", EXTRA)


def _schedule_free(name: str) -> Kind:
    return Kind(f"schedulefree.{name}", EXTRA)


def _dadapt(name: str) -> Kind:
    return Kind(f"dadaptation.{name}", one_rate=True)


OPTIMIZERS: dict[str, Kind] = {
    "AdamW": _torch("AdamW", _fused),
    "AdamW8bit": _bitsandbytes("AdamW8bit", "AdamW"),
    "PagedAdamW": _bitsandbytes("PagedAdamW", "AdamW"),
    "PagedAdamW8bit": _bitsandbytes("PagedAdamW8bit", "AdamW"),
    "PagedAdamW32bit": _bitsandbytes("PagedAdamW32bit", "AdamW"),
    "Lion": Kind("lion_pytorch.Lion", "lion-pytorch"),
    "Lion8bit": _bitsandbytes("Lion8bit", "Lion"),
    "PagedLion8bit": _bitsandbytes("PagedLion8bit", "Lion"),
    "Adafactor": Kind("transformers.optimization.Adafactor", build=_adafactor),
    "Prodigy": Kind("prodigyopt.Prodigy", one_rate=True),
    "DAdaptation": _dadapt("experimental.DAdaptAdamPreprint"),
    "DAdaptAdaGrad": _dadapt("DAdaptAdaGrad"),
    "DAdaptAdam": _dadapt("DAdaptAdam"),
    "DAdaptAdamPreprint": _dadapt("experimental.DAdaptAdamPreprint"),
    "DAdaptAdan": _dadapt("DAdaptAdan"),
    "DAdaptAdanIP": _dadapt("experimental.DAdaptAdanIP"),
    "DAdaptLion": _dadapt("DAdaptLion"),
    "DAdaptSGD": _dadapt("DAdaptSGD"),
    "SGDNesterov": _torch("SGD", momentum=0.9, nesterov=True),
    "SGDNesterov8bit": _bitsandbytes("SGD8bit", "SGDNesterov", _with_a_rate, momentum=0.9, nesterov=True),
    "AdamWScheduleFree": _schedule_free("AdamWScheduleFree"),
    "RAdamScheduleFree": _schedule_free("RAdamScheduleFree"),
    "SGDScheduleFree": _schedule_free("SGDScheduleFree"),
    "AdamW_SF": _schedule_free("AdamWScheduleFree"),
    "Adan_SF": Kind("lora_trainer.engine.adan_schedule_free.AdanScheduleFree"),
    "Adan": _collected("Adan"),
    "ADOPT": _collected("ADOPT"),
    "SOAP": _collected("SOAP"),
    "StableAdamW": _collected("StableAdamW"),
    "AdaBelief": _collected("AdaBelief"),
    "AdEMAMix": _collected("AdEMAMix"),
    "CAME": _collected("CAME"),
    "Lamb": _collected("Lamb"),
    "LaProp": _collected("LaProp"),
    "MARS": _collected("MARS"),
    "Ranger": _collected("Ranger"),
    "Tiger": _collected("Tiger"),
    "Adam": _torch("Adam", _fused),
    "Adam8bit": _bitsandbytes("Adam8bit", "Adam"),
    "PagedAdam8bit": _bitsandbytes("PagedAdam8bit", "Adam"),
    "AdEMAMix8bit": _bitsandbytes("AdEMAMix8bit", "AdEMAMix"),
    "RMSprop8bit": _bitsandbytes("RMSprop8bit", "RMSprop"),
    "Adadelta": _torch("Adadelta"),
    "Adagrad": _torch("Adagrad"),
    "Adamax": _torch("Adamax"),
    "ASGD": _torch("ASGD"),
    "NAdam": _torch("NAdam"),
    "RAdam": _torch("RAdam"),
    "RMSprop": _torch("RMSprop"),
    "Rprop": _torch("Rprop"),
    "SGD": _torch("SGD"),  # not fused: on a CPU that leaves half-precision weights where they are (torch 2.13)
}


def optimizer_names() -> list[str]:
    return list(OPTIMIZERS)


def optimizer_problems(name: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with a name and its options; only a single weight is given to the optimizer to find out."""
    weight = nn.Parameter(torch.zeros(2, 2))
    try:
        kind = _kind(name)
        found = kind.find(name)
        if problems := _option_problems(name, found, options):
            return problems
        _built(name, kind, found, [_plain_group(Group("", 1e-4, {"": weight}))], options)
    except Refusal as refusal:
        return list(refusal.problems)
    return []


def make_optimizer(
    name: str, groups: Sequence[Group], options: Mapping[str, Any], key: str = "optimizer_args"
) -> torch.optim.Optimizer:
    """An optimizer over the groups, in their order. Refusal when the options of the preset's `key` do not fit it."""
    return optimizer_maker(name, options, key)(groups)


def optimizer_maker(
    name: str, options: Mapping[str, Any], key: str = "optimizer_args"
) -> Callable[[Sequence[Group]], torch.optim.Optimizer]:
    """`make_optimizer` for any number of optimizers, whose name and options are looked at once. Raises Refusal."""
    kind = _kind(name)
    found = kind.find(name)
    if problems := _option_problems(name, found, options):
        raise Refusal(*(f"{key}: {problem}" for problem in problems))

    def make(groups: Sequence[Group]) -> torch.optim.Optimizer:
        if kind.one_rate and len({group.rate for group in groups if group.rate}) > 1:
            shown = ", ".join(f"{group.name} {group.rate:g}" for group in groups)
            raise Refusal(f'the optimizer "{name}" estimates one rate for all weights; make these equal or 0: {shown}')
        try:
            optimizer = _built(name, kind, found, [_plain_group(group) for group in groups], options)
        except Refusal as refusal:
            raise Refusal(*(f"{key}: {problem}" for problem in refusal.problems)) from refusal
        set_mode(optimizer, training=True)
        return optimizer

    return make


def _plain_group(group: Group) -> dict[str, Any]:
    return {
        "params": list(group.weights.values()),
        "lr": group.rate,
        "base_lr": group.rate,
        "name": group.name,
        "until": group.until,
    }


def _built(name: str, kind: Kind, found: Any, groups: Groups, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    try:
        values = {**kind.defaults, **options}
        if "betas" in values:  # PyTorch takes floats or nothing: JSON's `0, 0.99` mixes an int in
            values["betas"] = tuple(float(beta) for beta in values["betas"])
        with contextlib.redirect_stdout(None):  # some print a line about their options
            return kind.build(found, groups, values)
    except BUILD_ERRORS as error:
        raise Refusal(f'the optimizer "{name}" does not accept {dict(options)}: {error}') from error


def _kind(name: str) -> Kind:
    """An entry of the table, or any class by its dotted path."""
    folded = {_folded(known): kind for known, kind in OPTIMIZERS.items()}
    if _folded(name) in folded:
        return folded[_folded(name)]
    if "." in name.strip("."):
        return Kind(name)
    raise Refusal(
        f'there is no optimizer "{name}"; there is {", ".join(OPTIMIZERS)}, and any class by its path '
        f"(package.module.Class){did_you_mean(name, OPTIMIZERS)}"
    )


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")


def _option_problems(name: str, found: Any, options: Mapping[str, Any]) -> list[str]:
    if not (inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)):
        return [f'the optimizer "{name}" is not a torch.optim.Optimizer']
    closure = inspect.signature(found.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        return [f'the optimizer "{name}" asks for the loss several times in a step (a closure), which is not done here']
    parameters = inspect.signature(found).parameters
    usual, betas = getattr(parameters.get("betas"), "default", None), options.get("betas")
    count = len(betas) if isinstance(betas, Sequence) else 0
    if isinstance(usual, tuple) and betas is not None and count != len(usual):
        return [f'the optimizer "{name}" does not accept betas {betas}; write {len(usual)} numbers such as {usual}']
    known = [word for word, each in parameters.items() if word not in ("params", "lr") and each.kind is not ANY_WORD]
    if any(each.kind is ANY_WORD for each in parameters.values()):
        if not found.__module__.startswith("pytorch_optimizer"):
            return []
        # these take any word at all; only what they look up in their groups has an effect
        known = list(dict.fromkeys([*known, *re.findall(r"group\.get\('(\w+)'", inspect.getsource(found))]))
    return [
        f'the optimizer "{name}" does not accept {option}; it takes {", ".join(known)}{did_you_mean(option, known)}'
        for option in options
        if option not in known
    ]


def set_mode(optimizer: torch.optim.Optimizer, training: bool) -> None:
    """Schedule-free optimizers keep their weights at another point while they train; the others do nothing."""
    change = getattr(optimizer, "train" if training else "eval", None)
    if callable(change):
        change()


def set_rates(optimizer: torch.optim.Optimizer, factor: Callable[[str], float], step: int) -> None:
    """Put every group at its base rate times the factor of its name, and at 0 when its time is over; an optimizer with
    its own rate keeps it."""
    factors: dict[str, float] = {}  # one for each name: there may be as many groups as weights
    for group in optimizer.param_groups:
        if group["lr"] is None:
            continue
        name = group["name"]
        if name not in factors:
            factors[name] = factor(name)
        group["lr"] = group["base_lr"] * factors[name] if is_trained(group, step) else 0.0


def is_trained(group: Mapping[str, Any], step: int) -> bool:
    """Whether the weights of an optimizer's group are trained in this optimizer step."""
    until = group.get("until")
    return until is None or step < int(until)


def rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The rate of the groups of each name as it acts: Prodigy's and D-Adaptation's own estimate `d` is part of it."""
    found: dict[str, float] = {}
    for part in single_optimizers(optimizer):
        for group in part.param_groups:
            if not found.get(group["name"]):
                found[group["name"]] = _rate(part, group)
    return found


def _rate(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
    rate = group["lr"]
    if rate is None:  # Adafactor with relative steps
        state = next((optimizer.state[weight] for weight in group["params"] if weight in optimizer.state), None)
        rate = optimizer._get_lr(group, state) if state else 0.0  # type: ignore[attr-defined]
    return float(rate) * float(group.get("d", 1.0))


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Restore a `state_dict()` to the bit.

    PyTorch casts the state's tensors to their weight's dtype, which changes what an optimizer keeps in float32 beside
    bf16 weights (Adafactor). So each tensor is put back as it was saved, on the device that PyTorch chose for it.
    """
    if isinstance(optimizer, JoinedOptimizer):
        for part, own in zip(optimizer.parts, saved["parts"], strict=True):
            load_optimizer_state(part, own)
        return
    ends = [group.get("until") for group in optimizer.param_groups]  # which follow from the length of the run
    optimizer.load_state_dict(saved)
    for group, until in zip(optimizer.param_groups, ends, strict=True):
        group["until"] = until
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, state in saved["state"].items():
        restored = optimizer.state[weights[index]]
        for key in state.keys() & restored.keys():  # bitsandbytes packs some, and unpacks them itself
            restored[key] = _as_saved(state[key], restored[key])


def _as_saved(saved: Any, restored: Any) -> Any:
    """The saved value, copied, with its tensors (SOAP keeps lists of them) where the restored ones lie."""
    if torch.is_tensor(saved):
        return saved.to(restored.device if torch.is_tensor(restored) else saved.device, copy=True)
    if isinstance(saved, dict):
        return {key: _as_saved(value, restored[key]) for key, value in saved.items()}
    if isinstance(saved, (list, tuple)):
        return type(saved)(_as_saved(value, other) for value, other in zip(saved, restored, strict=True))
    return copy.deepcopy(saved)
