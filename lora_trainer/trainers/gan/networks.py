"""The two networks of a GAN in the sizes that its preset and its images ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_trainer.config.gan import GanPreset
from lora_trainer.data.labelled_images import LabelledImages
from lora_trainer.draws import draw_key
from lora_trainer.engine.precision import Precision
from lora_trainer.models.gan import r3gan
from lora_trainer.models.gan.discriminator import Discriminator
from lora_trainer.models.gan.half_precision import HalfPrecision
from lora_trainer.models.gan.mapping import Generator
from lora_trainer.models.gan.table import R3GAN, GanSize, build_discriminator, build_generator, build_r3gan

MAGNITUDE_HALF_LIFE = 20000  # images, of StyleGAN3's running means of its activations
LARGEST_GRADIENT = 1e5  # of a weight, where layers in half precision overflow


@dataclass(frozen=True)
class Networks:
    """`options` are what a snapshot says of them."""

    generator: Generator
    discriminator: Discriminator | r3gan.Discriminator
    options: dict[str, Any]

    def trained(self) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
        """The weights of both by name; those that no pass reaches are frozen for good."""
        unused: list[str] = getattr(self.generator.synthesis, "unused_parameters", list)()
        left_out = {f"synthesis.{name}" for name in unused}
        for name, weight in self.generator.named_parameters():
            weight.requires_grad_(name not in left_out)
        own = {name: weight for name, weight in self.generator.named_parameters() if name not in left_out}
        return own, dict(self.discriminator.named_parameters())


def build_networks(preset: GanPreset, images: LabelledImages, seed: int, precision: Precision) -> Networks:
    """With fresh weights, on the CPU. `precision` is that of the highest resolutions on a GPU."""
    half = HalfPrecision(0 if precision.name == "no" else 4, precision.dtype)
    size = GanSize(
        images.resolution, images.channels, images.label_dim, preset.cbase, preset.cmax, preset.clamp, half
    )  # fmt: skip
    generator, discriminator = _r3gan(size, seed) if preset.cfg == R3GAN else _stylegan(preset, size, seed)
    facts = {
        "resolution": size.resolution,
        "img_channels": size.img_channels,
        "c_dim": size.c_dim,
        "cbase": size.cbase,
        "cmax": size.cmax,
        "map_depth": generator.mapping.num_layers,
        "z_dim": generator.z_dim,
        "w_dim": generator.w_dim,
        "mbstd_group": preset.mbstd_group,
    }
    return Networks(generator, discriminator, facts)


def _stylegan(preset: GanPreset, size: GanSize, seed: int) -> tuple[Generator, Discriminator]:
    options = {}
    if preset.cfg.startswith("stylegan3"):
        options["magnitude_decay"] = 0.5 ** (preset.batch / MAGNITUDE_HALF_LIFE)
    generator = build_generator(
        preset.cfg, size, seed=draw_key(seed, "generator"), map_depth=preset.map_depth or None, **options
    )
    discriminator = build_discriminator(
        size, seed=draw_key(seed, "discriminator"), mbstd_group=preset.mbstd_group, freezed=preset.freezed
    )
    return generator, discriminator


def _r3gan(size: GanSize, seed: int) -> tuple[r3gan.Generator, r3gan.Discriminator]:
    return build_r3gan(size, seed=draw_key(seed, "generator"))


def place(networks: Networks, device: torch.device, precision: Precision) -> None:
    """On the device, in the order of memory that suits it."""
    for module in (networks.generator, networks.discriminator):
        module.to(device).train()
    if device.type == "cuda" and precision.name != "no":
        networks.discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def bound_gradients(weights: dict[str, nn.Parameter]) -> None:
    """Keep what overflowed in a layer of half precision from spoiling the step, whose other gradients are good."""
    for weight in weights.values():
        weight.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: gradient.nan_to_num(nan=0.0, posinf=LARGEST_GRADIENT, neginf=-LARGEST_GRADIENT)
        )
