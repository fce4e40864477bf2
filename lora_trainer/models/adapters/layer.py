"""What every kind of trained layer has in common, so that exporters and tools need not know which one it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

ADAPTER = "default"  # peft's own name for the only one in a model
Tensors = dict[str, Tensor]  # of one layer, by what stands behind its name in a file: "lora_down.weight", "alpha"


@dataclass(frozen=True)
class LayerPlan:
    """One layer before it is made.

    `name` is the layer's in the exported file, and keys its first weights. `algo` is "lora" or one of lycoris'
    names. A rank of 0 is for kinds that have none.
    """

    name: str
    algo: str
    rank: int
    alpha: float
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dropouts:
    """Shares of what is left out in training; 0 is nothing.

    `hidden` drops numbers between down and up, `rank` whole ranks for each sample, `module` whole layers.
    """

    hidden: float = 0.0
    rank: float = 0.0
    module: float = 0.0
    scales_rank: bool = False  # LyCORIS: scale up what `rank` leaves

    @property
    def any(self) -> bool:
        return bool(self.hidden or self.rank or self.module)


class AdapterLayer(Protocol):
    """A trained layer at one place of a model."""

    enabled: bool

    def file_tensors(self) -> Tensors:
        """What an exported file holds of it. May be the live parameters."""
        ...

    def misfit(self, tensors: Mapping[str, Tensor]) -> str:
        """What of a file does not fit this layer; nothing where all does."""
        ...

    def load_file_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what a file holds, which fits."""
        ...

    def limit_norm(self, largest: float) -> None:
        """Shrink the weights so that their change of the layer is not longer than this, without asking the device."""
        ...
