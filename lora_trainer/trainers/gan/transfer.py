"""A GAN that starts from a snapshot: its three networks are taken over, and what is not is told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import nn

from lora_trainer.errors import Refusal
from lora_trainer.models.gan.snapshot import Snapshot, read_snapshot
from lora_trainer.models.gan.transfer import transfer

log = logging.getLogger(__name__)


A = TypeVar("A")


def start_from(path: Path, cfg: str, generator: nn.Module, discriminator: nn.Module, average: Callable[[], A]) -> A:
    """Load a snapshot into the networks. Gives what `average()` makes while the generator is the averaged one.

    Raises Refusal for a snapshot of another cfg, or of which less than half fits.
    """
    snapshot = read_snapshot(path)
    if snapshot.cfg != cfg:
        raise Refusal(
            f"{path}: the snapshot is of {snapshot.cfg}, and the preset says cfg {cfg}; write {snapshot.cfg}, or give "
            "another snapshot"
        )
    averaged = "G_ema" if "G_ema" in snapshot.networks else "G"
    _take(snapshot, averaged, generator, path)
    made = average()
    if averaged != "G":
        _take(snapshot, "G" if "G" in snapshot.networks else averaged, generator, path)
    if "D" in snapshot.networks:
        _take(snapshot, "D", discriminator, path)
    else:
        log.info("%s: has no D: the discriminator starts anew", path)
    return made


def _take(snapshot: Snapshot, name: str, network: nn.Module, path: Path) -> None:
    if name not in snapshot.networks:
        raise Refusal(f"{path}: the snapshot has no generator; give one with G or G_ema")
    result = transfer(network, snapshot.networks[name], f"{path}: {name}")
    log.info("%s: %s: %s", path, name, result)
