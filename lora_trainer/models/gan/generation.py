"""Images from a snapshot: latents of seeds, truncation, styles mixed and interpolated, and what some networks can do.

n images, l layers of w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.models.gan import r3gan
from lora_trainer.models.gan.fourier_input import FourierInput
from lora_trainer.models.gan.mapping import Generator
from lora_trainer.models.gan.snapshot import Snapshot, read_snapshot
from lora_trainer.models.gan.table import R3GAN, W_DIM, Z_DIM, build_generator, build_r3gan
from lora_trainer.models.gan.transfer import transfer

AVERAGED, NOISES = "G_ema", ("const", "random", "none")


@dataclass(frozen=True)
class Look:
    """How images are painted from ws. `noise` is StyleGAN2's, `points` the side of CREPS' images in pixels.

    `transform` (3, 3) is StyleGAN3's: where in the waves each place of the picture lies.
    """

    noise: str = "const"
    points: int | None = None
    transform: Tensor | None = None
    fp32: bool = False


@dataclass(frozen=True)
class TrainedGenerator:
    """A generator with the weights of a snapshot."""

    cfg: str
    resolution: int
    network: Generator | r3gan.Generator
    device: torch.device

    def label(self, number: int | None, source: str) -> Tensor | None:
        """(1, c_dim) of a class. Raises Refusal where one is missing, or not there."""
        classes = self.network.c_dim
        if not classes:
            if number is not None:
                raise Refusal(f"{source}: the network has no classes; leave out --class")
            return None
        if number is None or not 0 <= number < classes:
            found = "say which" if number is None else f"there is no class {number}"
            raise Refusal(f"{source}: the network has the classes 0 to {classes - 1}, {found} with --class")
        return torch.eye(classes, device=self.device)[number][None]

    @torch.no_grad()
    def ws(self, z: Tensor, label: Tensor | None, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """z (n, z_dim) -> (n, l, w_dim)."""
        labels = None if label is None else label.expand(len(z), -1)
        found: Tensor = self.network.mapping(
            z.to(self.device), labels, truncation_psi=psi, truncation_cutoff=cutoff
        )  # fmt: skip
        return found

    @torch.no_grad()
    def paint(self, ws: Tensor, look: Look = Look(), keys: Sequence[int] = ()) -> Tensor:
        """(n, l, w_dim) -> uint8 (n, c, h, w) on the CPU. Each image's random noise follows from its key."""
        synthesis = self.network.synthesis
        options: dict[str, object] = {"force_fp32": look.fp32}
        if hasattr(synthesis, "noise_size"):
            options["noise"] = self._noise(keys) if look.noise == "random" else look.noise
        if look.points is not None:
            options["points"] = look.points
        origin = getattr(synthesis, "input", None)
        if look.transform is not None and isinstance(origin, FourierInput):
            origin.transform = look.transform.to(origin.transform)
        return as_bytes(synthesis(ws.to(self.device), **options)).cpu()

    def _noise(self, keys: Sequence[int]) -> Tensor:
        size = self.network.synthesis.noise_size
        assert isinstance(size, int)
        rows = [torch.randn(size, generator=torch_generator("noise", key)) for key in keys]
        return torch.stack(rows).to(self.device)


def as_bytes(images: Tensor) -> Tensor:
    """From -1 to 1 -> uint8, as StyleGAN's own programs cut them off: x * 127.5 + 128, rounded down."""
    return (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def read_generator(path: Path, device: torch.device | str = "cpu") -> TrainedGenerator:
    """The averaged generator of our snapshot or of an official one. Raises Refusal."""
    snapshot = read_snapshot(path)
    name = AVERAGED if AVERAGED in snapshot.networks else "G"
    if name not in snapshot.networks:
        raise Refusal(f"{path}: there is no generator in it; give a snapshot with G or G_ema")
    try:
        network = _built(snapshot)
    except KeyError as error:
        raise Refusal(
            f"{path}: the snapshot does not tell its {error.args[0]}; give the one it was made from"
        ) from error
    taken = transfer(network, snapshot.networks[name], f"{path}: {name}")
    if taken.missing or taken.mismatched:
        raise Refusal(f"{path}: {name} does not fit its own options: {taken}; give a whole snapshot")
    network.eval().requires_grad_(False)
    return TrainedGenerator(
        snapshot.cfg, int(snapshot.options["resolution"]), network.to(device), torch.device(device)
    )  # fmt: skip


def _built(snapshot: Snapshot) -> Generator | r3gan.Generator:
    options = snapshot.options
    if snapshot.cfg == R3GAN:
        return build_r3gan(snapshot.size)[0]
    dims = int(options.get("z_dim", Z_DIM)), int(options.get("w_dim", W_DIM))
    return build_generator(snapshot.cfg, snapshot.size, map_depth=options.get("map_depth"), dims=dims)


def seed_latents(seeds: Sequence[int], z_dim: int) -> Tensor:
    """(n, z_dim), for each seed the numbers that StyleGAN's own programs draw for it, by numpy's RandomState."""
    rows = [np.random.RandomState(seed).standard_normal(z_dim) for seed in seeds]
    return torch.tensor(np.stack(rows), dtype=torch.float32)


def picture_transform(right: float = 0.0, down: float = 0.0, degrees: float = 0.0) -> Tensor:
    """(3, 3) that shifts a StyleGAN3's picture by parts of its side, after turning it counterclockwise."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    place = torch.tensor([[cosine, sine, right], [-sine, cosine, down], [0.0, 0.0, 1.0]], dtype=torch.float64)
    inverse: Tensor = torch.linalg.inv(place)
    return inverse


def mixed_styles(rows: Tensor, columns: Tensor, layers: Sequence[int]) -> Tensor:
    """(r, l, d) and (c, l, d) -> (r, c, l, d): each row's w, and in `layers` each column's."""
    mixed = rows[:, None].repeat(1, len(columns), 1, 1)
    mixed[:, :, list(layers)] = columns[None][:, :, list(layers)]
    return mixed


def interpolated(keyframes: Tensor, frames: int) -> Tensor:
    """(k, l, d) -> (k * frames, l, d): a smooth path through the keyframes and back to the first one."""
    from scipy.interpolate import CubicSpline

    count = len(keyframes)
    if count == 1:
        return keyframes.repeat(frames, 1, 1)
    closed = torch.cat([keyframes, keyframes[:1]]).double().cpu().numpy()
    spline = CubicSpline(np.arange(count + 1), closed, bc_type="periodic")
    return torch.tensor(spline(np.arange(count * frames) / frames), dtype=keyframes.dtype, device=keyframes.device)


def sheet(images: Tensor, columns: int) -> Tensor:
    """(n, c, h, w) -> (c, rows * h, columns * w), row by row; places that are left over are black."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    places = images.new_zeros(rows * columns, channels, height, width)
    places[:count] = images
    lines = places.view(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return lines.reshape(channels, rows * height, columns * width)
