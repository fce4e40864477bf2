"""Beginning from another network's weights: tensors are taken by name and shape, and what was not is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_trainer.errors import Refusal

LEAST_PART = 0.5  # of a network's trained numbers, below which it would be random rather than transferred


@dataclass(frozen=True)
class Transfer:
    """Names of tensors that were taken, that the source lacks, whose shapes differ, and that nothing asked for."""

    taken: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        taken, missing, mismatched = (len(names) for names in (self.taken, self.missing, self.mismatched))
        text = f"{taken} tensors taken, {missing} missing, {mismatched} of another shape"
        absent = (*self.missing, *self.mismatched)
        more = ", ..." if len(absent) > 4 else ""
        return f"{text} ({', '.join(absent[:4])}{more})" if absent else text


@torch.no_grad()
def transfer(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> Transfer:
    """Copy in place what fits. `source` names the snapshot and the network in it.

    Raises Refusal, and copies nothing, when less than half of the weights would be taken.
    """
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    fits = [name for name in own if name in tensors and own[name].shape == tensors[name].shape]
    missing = tuple(name for name in own if name not in tensors)
    mismatched = tuple(name for name in own if name in tensors and own[name].shape != tensors[name].shape)
    result = Transfer(tuple(fits), missing, mismatched, tuple(name for name in tensors if name not in own))
    trained = {name: value.numel() for name, value in network.named_parameters()}
    if sum(trained.get(name, 0) for name in fits) < LEAST_PART * sum(trained.values()):
        raise Refusal(
            f"{source}: too little of it fits the network of this preset: {result}; "
            "give a snapshot of the same cfg, resolution, cbase and cmax"
        )
    for name in fits:
        own[name].copy_(tensors[name])
    return result
