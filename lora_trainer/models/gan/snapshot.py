"""A GAN's snapshot: the generator, its average and the discriminator with what they were built with, as safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_trainer.atomic import write_bytes
from lora_trainer.errors import Refusal
from lora_trainer.models.gan.official_pickle import NETWORKS, OfficialNetwork, OfficialSnapshot, read_official_pickle
from lora_trainer.models.gan.table import ARCHITECTURES, CFGS, GanSize
from lora_trainer.models.safetensors_bytes import safetensors_bytes
from lora_trainer.models.safetensors_header import read_header

FORMAT = "lora_trainer gan 1"
OPTIONS = "options"
PICKLE, HEADER = b"\x80", b"{"  # what the one begins with, and the other after the length of its header


@dataclass(frozen=True)
class Snapshot:
    """Tensors of each network by name, `cfg`, and the options in the words of a preset where the file tells them.

    Options: resolution, img_channels, c_dim, cbase, cmax, map_depth, z_dim, w_dim.
    """

    cfg: str
    networks: dict[str, dict[str, Tensor]]
    options: dict[str, Any]

    @property
    def size(self) -> GanSize:
        """For `build_generator`; raises KeyError where the file does not tell."""
        return GanSize(
            **{name: self.options[name] for name in ("resolution", "img_channels", "c_dim", "cbase", "cmax")}
        )


def save_snapshot(
    path: Path, cfg: str, networks: Mapping[str, Mapping[str, Tensor]], options: Mapping[str, Any]
) -> None:
    """Write state dicts of some of G, D and G_ema; the same ones give the same bytes."""
    tensors = {
        f"{network}.{name}": tensor.detach().to("cpu").clone().contiguous()
        for network, state in networks.items()
        for name, tensor in state.items()
    }
    metadata = {"format": "pt", "type": FORMAT, "cfg": cfg, OPTIONS: json.dumps(dict(options), sort_keys=True)}
    write_bytes(path, safetensors_bytes(tensors, metadata))


def read_snapshot(path: Path) -> Snapshot:
    """Read our own snapshot or an official .pkl, told apart by content. Raises Refusal."""
    if not path.is_file():
        raise Refusal(f"{path}: there is no such snapshot; correct the path")
    with path.open("rb") as file:
        start = file.read(9)
    is_pickle = start[:1] == PICKLE and start[8:] != HEADER  # the length of a header may begin with the same byte
    return _translated(path, read_official_pickle(path)) if is_pickle else _read_own(path)


def _read_own(path: Path) -> Snapshot:
    metadata = read_header(path).metadata
    if metadata.get("type") != FORMAT or metadata.get("cfg") not in CFGS:
        raise Refusal(f"{path}: the file is no snapshot of a GAN; give one that the gan trainer or stylegan3 wrote")
    networks: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no dict
                network, _, rest = name.partition(".")
                networks.setdefault(network, {})[rest] = file.get_tensor(name)
    except SafetensorError as error:
        raise Refusal(f"{path}: the snapshot is damaged ({error}); copy it again") from error
    return Snapshot(metadata["cfg"], networks, json.loads(metadata.get(OPTIONS, "{}")))


def _translated(path: Path, official: OfficialSnapshot) -> Snapshot:
    networks = {name: official.networks[name].tensors for name in NETWORKS if name in official.networks}
    generator = official.networks.get("G_ema") or official.networks.get("G")
    cfg = None if generator is None else architecture_of(generator.tensors)
    if generator is None or cfg is None:
        raise Refusal(f"{path}: its generator is none of {', '.join(ARCHITECTURES)}; give a snapshot of one of them")
    return Snapshot(cfg, networks, _options(cfg, generator))


def _options(cfg: str, generator: OfficialNetwork) -> dict[str, Any]:
    """The official constructor's words in ours; the generator of StyleGAN3-R was given twice the preset's widths."""
    kind, official = ARCHITECTURES[cfg], generator.options
    words = {"img_resolution": "resolution", "img_channels": "img_channels", "c_dim": "c_dim", "z_dim": "z_dim"}
    found = {ours: official[theirs] for theirs, ours in {**words, "w_dim": "w_dim"}.items() if theirs in official}
    nested = official.get("synthesis_kwargs")  # where older versions put them
    widths = {**(nested if isinstance(nested, dict) else {}), **official}
    found["cbase"] = int(widths.get("channel_base", 32768)) // kind.widening
    found["cmax"] = int(widths.get("channel_max", 512)) // kind.widening
    found["map_depth"] = sum(re.fullmatch(r"mapping\.fc\d+\.weight", name) is not None for name in generator.tensors)
    return found


def architecture_of(tensors: Mapping[str, Tensor]) -> str | None:
    """The `cfg` of a generator by the names of its tensors, None when it is of another kind."""
    if "synthesis.b4.input.freqs" in tensors:
        return "creps"
    if "synthesis.b4.const" in tensors:
        return "stylegan2"
    if "synthesis.input.freqs" not in tensors:
        return None
    first = next(
        (value for name, value in tensors.items() if name.startswith("synthesis.L0_") and value.ndim == 4), None
    )
    if first is None:
        return None
    return "stylegan3-r" if first.shape[-1] == 1 else "stylegan3-t"
