"""Losses that compare what VGG19 sees in two pictures.

Letters: b batch, c channels, h w places of a layer. Pictures are (b, 3, h, w) from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.full_precision import full_precision
from lora_trainer.losses.pixel import DIFFERENCES, per_sample
from lora_trainer.losses.vgg import Vgg19Features, channels_of

CRITERIA = ("charbonnier", "l1", "l2", "mse", "pd", "fd", "pd+l1", "fd+l1")
CONVOLUTIONS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
ACTIVATIONS = {"relu1_2": 0.1, "relu2_2": 0.1, "relu3_4": 1.0, "relu4_4": 1.0, "relu5_4": 1.0}
PATCH = 5  # side of a random projection
LEAST_SUM = 1e-14


@dataclass(frozen=True)
class FrequencyOptions:
    """Of the "fd" criterion: random projections of a layer, the phase's weight, and the step between patches."""

    num_proj: int = 256
    phase_weight: float = 1.0
    stride: int = 1


def default_layer_weights(criterion: str) -> dict[str, float]:
    """The layers that a criterion compares where a preset names none. Raises Refusal for an unknown criterion.

    Values are compared before the activation; distributions after it, where there are no signs.
    """
    if criterion not in CRITERIA:
        raise Refusal(f"there is no criterion {criterion!r}; write one of {', '.join(CRITERIA)}")
    plain, distribution = _kinds(criterion)
    return {**(CONVOLUTIONS if plain else {}), **(ACTIVATIONS if distribution else {})}


class PerceptualDifference(nn.Module):
    """(b,) the weighted sum, over a network's layers, of how far two pictures are apart.

    ``alpha`` has a number for each layer, in the network's order: 0 compares value by value, 1 as distributions, which
    count ``w_lambda``. Without it activations have 1 where the criterion knows distributions, and all else 0.
    Raises Refusal.
    """

    def __init__(
        self,
        network: Vgg19Features,
        layer_weights: Mapping[str, float],
        criterion: str = "charbonnier",
        alpha: Sequence[float] | None = None,
        w_lambda: float = 0.01,
        frequency: FrequencyOptions | None = None,
    ) -> None:
        super().__init__()
        self.plain, distribution = _kinds(criterion)
        self.network = network
        self.layer_weights = {name: float(layer_weights[name]) for name in network.wanted}
        self.shares = _shares(network.wanted, self.plain, distribution, alpha)
        self.w_lambda = w_lambda
        layers = [name for name, share in self.shares.items() if share > 0]
        self.projections = _Projections(layers, frequency or FrequencyOptions()) if distribution == "fd" else None

    @full_precision
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        found = self.network(output)
        with torch.no_grad():
            wanted = self.network(target)
        total = output.new_zeros(output.shape[0])
        for name, weight in self.layer_weights.items():
            share = self.shares[name]
            if share < 1:
                apart = per_sample(DIFFERENCES[self.plain](found[name], wanted[name]))
                total = total + weight * (1 - share) * apart
            if share > 0:
                total = total + weight * share * self.w_lambda * self._distance(name, found[name], wanted[name])
        return total

    def _distance(self, name: str, found: Tensor, wanted: Tensor) -> Tensor:
        if self.projections is None:
            return projected_distance(found, wanted)
        distance: Tensor = self.projections(name, found, wanted)
        return distance


def projected_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """(b,) the mean over channels of how far the mass of one layer has to be moved, row by row, to make the other."""
    moved = _shape_of(found) - _shape_of(wanted)
    return moved.cumsum(-1).abs().sum(-1).mean(1)


def _shape_of(values: Tensor) -> Tensor:
    """(b, c, h * w) with the sum 1 in every channel."""
    flat = values.flatten(2)
    return flat / (flat.sum(-1, keepdim=True) + LEAST_SUM)


class _Projections(nn.Module):
    """Compares amplitudes and phases of layers by the order of their random projections (Ni et al. 2024)."""

    def __init__(self, layers: Sequence[str], options: FrequencyOptions) -> None:
        super().__init__()
        self.options = options
        for name in layers:
            generator = torch_generator("frequency distance", name)
            directions = torch.randn(options.num_proj, channels_of(name), PATCH, PATCH, generator=generator)
            lengths = directions.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            self.register_buffer(name, directions / lengths, persistent=False)

    def forward(self, name: str, found: Tensor, wanted: Tensor) -> Tensor:
        if min(found.shape[-2:]) < PATCH:
            raise Refusal(
                f"the criterion fd looks at patches of {PATCH} x {PATCH}, but {name} has only {found.shape[-2]} x "
                f"{found.shape[-1]} places; use larger crops, or name earlier layers in layer_weights"
            )
        spectra = torch.fft.fft2(found), torch.fft.fft2(wanted)
        amplitude = self._apart(name, spectra[0].abs(), spectra[1].abs())
        return amplitude + self.options.phase_weight * self._apart(name, spectra[0].angle(), spectra[1].angle())

    def _apart(self, name: str, found: Tensor, wanted: Tensor) -> Tensor:
        directions = self.get_buffer(name)
        ordered = [
            F.conv2d(values, directions, stride=self.options.stride).flatten(2).sort(dim=-1).values
            for values in (found, wanted)
        ]
        return (ordered[0] - ordered[1]).abs().mean((1, 2))


def _kinds(criterion: str) -> tuple[str, str]:
    """What a criterion compares values with, and what distributions; "" for neither."""
    first, _, second = criterion.partition("+")
    return (second, first) if first in ("pd", "fd") else (first, "")


def _shares(wanted: Sequence[str], plain: str, distribution: str, alpha: Sequence[float] | None) -> dict[str, float]:
    if alpha is None:
        alpha = [1.0 if distribution and name.startswith("relu") else 0.0 for name in wanted]
    if len(alpha) != len(wanted):
        raise Refusal(
            f"alpha: {len(alpha)} numbers for the {len(wanted)} layers {', '.join(wanted)}; write one for each"
        )
    shares = dict(zip(wanted, alpha, strict=True))
    for name, share in shares.items():
        if share < 1 and not plain:
            raise Refusal(
                f"layer_weights: {name} has signs, which the criterion {distribution} does not take; name relu layers, "
                f"or write {distribution}+l1"
            )
        if share > 0 and not distribution:
            raise Refusal(f"alpha: {name} is to be compared as a distribution; write the criterion pd+l1 or fd+l1")
    return shares
