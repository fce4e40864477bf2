"""The discriminators by the names that presets use, and their options checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from lora_trainer.errors import did_you_mean
from lora_trainer.models.discriminators.dunet import DUnet
from lora_trainer.models.discriminators.patchgan import MultiscalePatchGANDiscriminatorSN, PatchGANDiscriminatorSN
from lora_trainer.models.discriminators.unet import UNetDiscriminatorSN
from lora_trainer.models.discriminators.vgg_style import SIZES, VGGStyleDiscriminator

DISCRIMINATORS: Mapping[str, Callable[..., nn.Module]] = {
    "dunet": DUnet,
    "unetdiscriminatorsn": UNetDiscriminatorSN,
    "patchgandiscriminatorsn": PatchGANDiscriminatorSN,
    "multiscalepatchgandiscriminatorsn": MultiscalePatchGANDiscriminatorSN,
    "vggstylediscriminator": VGGStyleDiscriminator,
}
LEAST_PX = 8  # of the U-Nets, which halve three times


def check_discriminator_options(type: str, options: Mapping[str, Any]) -> list[str]:
    """A sentence for everything that is wrong with a `network_d`."""
    name = type.casefold()
    if name not in DISCRIMINATORS:
        return [
            f"there is no discriminator {type}{did_you_mean(name, DISCRIMINATORS)}; "
            f"there is {', '.join(DISCRIMINATORS)}"
        ]
    known = {key: each.default for key, each in inspect.signature(DISCRIMINATORS[name]).parameters.items()}
    problems = [
        f"{type} has no option {option}{did_you_mean(option, known)}; there is {', '.join(known)}"
        for option in options
        if option not in known
    ]
    for option, value in options.items():
        default = known.get(option)
        switch = isinstance(default, bool)
        fits = (
            isinstance(value, bool) if switch else isinstance(value, int) and not isinstance(value, bool) and value > 0
        )
        if default is not None and not fits:
            wanted = "true or false" if switch else "a whole number from 1 upwards"
            problems.append(f"{option} is {value!r}; write {wanted}")
    if options.get("num_in_ch", 3) != 3:
        problems.append(f"num_in_ch is {options['num_in_ch']}; pictures have the 3 channels of RGB, so remove it")
    return problems


def check_size(type: str, options: Mapping[str, Any], gt_px: int) -> str:
    """What is wrong with crops of this side, or ""."""
    name = type.casefold()
    if name == "vggstylediscriminator":
        size = options.get("input_size", SIZES[0])
        if size not in SIZES:
            return f"input_size is {size}; write 128 or 256"
        if size != gt_px:
            return f"{type} looks at pictures of input_size {size}, but the high-resolution crops have {gt_px} pixels"
    least = _least_px(name, options)
    if gt_px < least:
        return f"{type} needs high-resolution crops of at least {least} pixels; they have {gt_px}"
    return ""


def _least_px(name: str, options: Mapping[str, Any]) -> int:
    """A PatchGAN halves `n_layers` times, and its last scale begins with `num_d` - 1 halvings more; 4 pixels remain."""
    if not name.endswith("patchgandiscriminatorsn"):
        return LEAST_PX
    known = inspect.signature(DISCRIMINATORS[name]).parameters
    halvings = [
        options.get(option, known[option].default) - less
        for option, less in (("n_layers", 0), ("num_d", 1))
        if option in known
    ]
    if not all(isinstance(each, int) for each in halvings):
        return LEAST_PX
    exponent: int = min(max(0, sum(halvings)), 20)
    return 4 << exponent


def build_discriminator(type: str, options: Mapping[str, Any], seed: int) -> nn.Module:
    """With fresh weights that follow from the seed. The options have been checked."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
        return DISCRIMINATORS[type.casefold()](**options)
