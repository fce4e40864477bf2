"""The optimizers by the names that presets use, and how their state is restored exactly."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_trainer.errors import Refusal


@dataclass(frozen=True)
class Group:
    """Weights that share a learning rate; the name appears in logs ("unet", "text_encoder")."""

    name: str
    rate: float
    weights: Mapping[str, nn.Parameter]


Build = Callable[[list[dict[str, Any]], dict[str, Any]], torch.optim.Optimizer]


def _torch_adamw(groups: list[dict[str, Any]], options: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, **{"fused": True, **options})


def _lion(groups: list[dict[str, Any]], options: dict[str, Any]) -> torch.optim.Optimizer:
    import lion_pytorch

    optimizer: torch.optim.Optimizer = lion_pytorch.Lion(groups, **options)
    return optimizer


def _prodigy(groups: list[dict[str, Any]], options: dict[str, Any]) -> torch.optim.Optimizer:
    import prodigyopt

    optimizer: torch.optim.Optimizer = prodigyopt.Prodigy(groups, **options)
    return optimizer


def _adafactor(groups: list[dict[str, Any]], options: dict[str, Any]) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    if options.get("relative_step", True):  # it finds its own rate, and refuses to be given one
        groups = [{**group, "lr": None} for group in groups]
    return Adafactor(groups, **options)  # type: ignore[no-untyped-call]


def _bitsandbytes(name: str) -> Build:
    def build(groups: list[dict[str, Any]], options: dict[str, Any]) -> torch.optim.Optimizer:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise Refusal(
                f'optimizer "{name}" needs the package bitsandbytes, which is not installed: '
                f'`pip install bitsandbytes`, or set optimizer to "{name.removesuffix("8bit")}"'
            )
        import bitsandbytes

        optimizer: torch.optim.Optimizer = getattr(bitsandbytes.optim, name)(groups, **options)
        return optimizer

    return build


OPTIMIZERS: dict[str, Build] = {
    "adamw": _torch_adamw,
    "adamw8bit": _bitsandbytes("AdamW8bit"),
    "lion": _lion,
    "lion8bit": _bitsandbytes("Lion8bit"),
    "adafactor": _adafactor,
    "prodigy": _prodigy,
}


def make_optimizer(name: str, groups: Sequence[Group], options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """An optimizer over the groups, in their order. Refusal when the preset's `optimizer_args` do not fit it."""
    plain = [
        {"params": list(group.weights.values()), "lr": group.rate, "base_lr": group.rate, "name": group.name}
        for group in groups
    ]
    options = dict(options)
    if "betas" in options:  # PyTorch takes two floats or nothing: JSON's `0, 0.99` mixes an int in
        options["betas"] = tuple(float(beta) for beta in options["betas"])
    try:
        return OPTIMIZERS[name.lower()](plain, options)
    except (TypeError, ValueError) as error:
        raise Refusal(f'optimizer_args: the optimizer "{name}" does not accept {options}: {error}') from error


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Put every group at its base rate times the schedule's factor; an optimizer with its own rate keeps it."""
    for group in optimizer.param_groups:
        if group["lr"] is not None:
            group["lr"] = group["base_lr"] * factor


def rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The rate of each group as it acts: Prodigy's and D-Adaptation's own estimate `d` is part of it."""
    found = {}
    for group in optimizer.param_groups:
        rate = group["lr"]
        if rate is None:  # Adafactor with relative steps
            state = next((optimizer.state[p] for p in group["params"] if p in optimizer.state), None)
            rate = optimizer._get_lr(group, state) if state else 0.0  # type: ignore[attr-defined]
        found[group["name"]] = float(rate) * float(group.get("d", 1.0))
    return found


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Restore a `state_dict()` to the bit.

    PyTorch casts the state's tensors to their weight's dtype, which changes what an optimizer keeps in float32 beside
    bf16 weights (Adafactor). So each tensor is put back as it was saved, on the device that PyTorch chose for it.
    """
    optimizer.load_state_dict(saved)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, state in saved["state"].items():
        restored = optimizer.state[weights[index]]
        for key, value in state.items():
            if torch.is_tensor(value) and torch.is_tensor(restored[key]):
                restored[key] = value.to(restored[key].device, copy=True)
