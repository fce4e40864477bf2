"""The keys of a restoration preset about the networks: Stable Diffusion 2.1, its LoRA, and what judges its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Le

from lora_trainer.config.kinds import AnyCase, Count, PathText, Positive, Words
from lora_trainer.config.setting import no_effect, setting

STAND_IN = "stand-in"
LORA_MODULES = (
    "to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_out", "proj_in", "proj_out",
    "ff.net.2", "ff.net.0.proj",
)  # fmt: skip
Timestep = Annotated[Count, Le(999)]


@dataclass(frozen=True, kw_only=True)
class Base:
    """The diffusion model that restores a picture in one step. None of it is trained but for the LoRA."""

    base_model_path: PathText = setting(
        "",
        "A diffusers folder of Stable Diffusion 2.1-base, or its name on the hub. stand-in is a tiny network of ours "
        "that has learnt nothing.",
        required=True,
        example="models/stable-diffusion-2-1-base",
    )
    base_model_type: Annotated[Literal["sd2"], AnyCase()] = setting(
        "sd2", "The family of the base model.", effect=no_effect("there is only one family")
    )
    model_t: Timestep = setting(
        200, "The timestep that the UNet is told. A lower one keeps closer to the picture and invents less."
    )
    coeff_t: Timestep = setting(
        200,
        "The timestep whose alpha turns the UNet's answer into a picture: "
        "x0 = (z - sqrt(1 - alpha) * eps) / sqrt(alpha). Usually model_t.",
    )


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """The LoRA in the UNet, which is what is trained and saved. Its alpha is its rank."""

    lora_rank: Positive = setting(
        256, "The rank of the LoRA. 512 can learn more and has twice as many weights and optimizer states."
    )
    lora_modules: Words = setting(
        LORA_MODULES, "The UNet's layers that get a LoRA, each by its name or by the last parts of it."
    )
    weight_path: PathText = setting(
        "",
        "A LoRA to start from, of the same rank and modules: the state_dict.pth of a run, HYPIR_sd2.pth, or a "
        ".safetensors of ours. Without it, the LoRA begins at nothing.",
    )
    resume_from_checkpoint: PathText = setting(
        "",
        "A checkpoint to go on from.",
        may_change=True,
        effect=no_effect("the same command goes on from its own last checkpoint; weight_path starts from a file"),
    )


@dataclass(frozen=True, kw_only=True)
class Judges:
    """The networks that the restored pictures are judged with. Only the discriminator's heads are trained."""

    discriminator_backbone: PathText = setting(
        "",
        "What the discriminator sees with: a file of open_clip's convnext_xxlarge (laion2b_s34b_b82k_augreg_soup), "
        "or of a smaller ConvNeXt of open_clip, or its folder. Without it, it is looked for among the hub's downloads. "
        "stand-in is a small network of ours that has learnt nothing.",
    )
    lpips_weights: PathText = setting(
        "",
        "What LPIPS sees with: a folder with vgg16-397923af.pth and lpips_weights.pt. Without it, they are looked for "
        "among torch's downloads. stand-in is a network with random weights, whose LPIPS can be compared with itself "
        "alone.",
    )
