"""Matrices as products of two small ones: singular values, how many of them to keep, and what is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_SINGULAR_VALUE = 1e-6  # a matrix below it is nothing, and gets one rank
_LARGE = 256  # the shorter side
_QUANTILE_LIMIT = 1 << 24  # more numbers torch.quantile does not take


@dataclass(frozen=True)
class Decomposed:
    """matrix = u @ diag(values) @ v, the values falling."""

    u: Tensor  # (out, n)
    values: Tensor  # (n,)
    v: Tensor  # (n, in)


@dataclass(frozen=True)
class RankRule:
    """How many ranks to keep: at most `most`, and by `method` where one is named.

    `sv_ratio`: the singular values above the largest one divided by `amount`. `sv_cumulative`: as few as make up this
    share of their sum. `sv_fro`: as few as make up this share of the Frobenius norm (the root of their squares' sum).
    """

    most: int
    method: str = ""
    amount: float = 0.0


def decompose(matrix: Tensor) -> Decomposed:
    """The singular values of a matrix (out, in), and float32 vectors.

    A large matrix goes through the eigenvalues of its square in float64, which is three to nine times as fast; values
    below 1e-8 of the largest are noise then.
    """
    if min(matrix.shape) < _LARGE or matrix.device.type == "mps":  # which has no float64
        u, values, v = torch.linalg.svd(matrix.float(), full_matrices=False)
        return Decomposed(u, values, v)
    if matrix.shape[0] > matrix.shape[1]:
        turned = decompose(matrix.T)
        return Decomposed(turned.v.T, turned.values, turned.u.T)
    exact = matrix.double()
    squares, vectors = torch.linalg.eigh(exact @ exact.T)  # rising
    u = vectors.flip(1)
    values = squares.flip(0).clamp_min(0).sqrt()
    v = (u.T @ exact) / values.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    return Decomposed(u.float(), values.float(), v.float())


def decompose_product(up: Tensor, down: Tensor) -> Decomposed:
    """The same for up (out, r) @ down (r, in), without ever making the product: at most r values.

    Each factor is a rotation times a small matrix (QR), so that only an r by r matrix is left to decompose.
    """
    if up.shape[1] >= min(up.shape[0], down.shape[1]):
        return decompose(up.float() @ down.float())
    rotation_up, core_up = torch.linalg.qr(up.float())
    rotation_down, core_down = torch.linalg.qr(down.float().T)
    core = decompose(core_up @ core_down.T)
    return Decomposed(rotation_up @ core.u, core.values, core.v @ rotation_down.T)


def kept_rank(values: Tensor, rule: RankRule) -> int:
    """How many of the falling singular values the rule keeps: at least one."""
    if float(values[0]) <= SMALLEST_SINGULAR_VALUE:
        return 1
    wanted = METHODS[rule.method](values.double(), rule.amount) if rule.method else rule.most
    return max(1, min(wanted, rule.most, len(values)))


def _by_ratio(values: Tensor, amount: float) -> int:
    return int((values > values[0] / amount).sum())


def _by_share(values: Tensor, share: float) -> int:
    sums = values.cumsum(0)
    return int((sums < share * sums[-1] * (1 - 1e-12)).sum()) + 1


METHODS: dict[str, Callable[[Tensor, float], int]] = {
    "sv_ratio": _by_ratio,
    "sv_cumulative": _by_share,
    "sv_fro": lambda values, share: _by_share(values.square(), share * share),
}


def lost_share(values: Tensor, rank: int) -> float:
    """The length (Frobenius norm) of what `rank` values leave out, as a share of the whole."""
    whole = float(values.double().norm())
    return float(values[rank:].double().norm()) / whole if whole else 0.0


def factors(matrix: Decomposed, rank: int) -> tuple[Tensor, Tensor]:
    """up (out, rank) and down (rank, in) of the first values, each with a half of their size, for half precision."""
    roots = matrix.values[:rank].sqrt()
    return matrix.u[:, :rank] * roots, roots[:, None] * matrix.v[:rank]


def clamped_factors(matrix: Decomposed, rank: int, quantile: float) -> tuple[Tensor, Tensor]:
    """up with the whole size and down without, both cut at this quantile of all their numbers, as sd-scripts does."""
    up, down = matrix.u[:, :rank] * matrix.values[:rank], matrix.v[:rank]
    if quantile >= 1:
        return up, down
    numbers = torch.cat([up.flatten(), down.flatten()])
    if numbers.numel() < _QUANTILE_LIMIT:
        largest = torch.quantile(numbers, quantile)
    else:
        largest = torch.kthvalue(numbers, max(1, round(quantile * numbers.numel()))).values
    return up.clamp(-largest, largest), down.clamp(-largest, largest)
