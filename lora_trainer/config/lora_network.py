"""The keys of a LoRA preset about the layers that are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lora_trainer.config.kinds import (
    AnyCase,
    Count,
    NotNegative,
    Number,
    PathText,
    Positive,
    Share,
    Switch,
    Text,
    Whole,
)
from lora_trainer.config.setting import no_effect, not_yet, setting

LYCORIS_ONLY = "read by LyCORIS types only; LoRA_type is Standard"
STANDARD_HAS_NO_CONVOLUTIONS = "LoRA_type Standard has no 3 x 3 convolutions"
TYPES_LATER = (
    "Kohya LoCon", "Kohya DyLoRA", "LoRA-FA", "LyCORIS/LoCon", "LyCORIS/LoHa", "LyCORIS/LoKr", "LyCORIS/iA3",
    "LyCORIS/DyLoRA", "LyCORIS/GLoRA", "LyCORIS/BOFT", "LyCORIS/Diag-OFT", "LyCORIS/Native Fine-Tuning",
)  # fmt: skip
FORMER_TYPES = {name: f"LyCORIS/{name}" for name in ("LoCon", "LoHa", "LoKr", "iA3")}


@dataclass(frozen=True, kw_only=True)
class Network:
    """The layers that are added and trained."""

    LoRA_type: Annotated[
        Literal[
            "Standard", "Kohya LoCon", "Kohya DyLoRA", "LoRA-FA", "LyCORIS/LoCon", "LyCORIS/LoHa", "LyCORIS/LoKr",
            "LyCORIS/iA3", "LyCORIS/DyLoRA", "LyCORIS/GLoRA", "LyCORIS/BOFT", "LyCORIS/Diag-OFT",
            "LyCORIS/Native Fine-Tuning",
        ],
        AnyCase(),
    ] = setting(
        "Standard", "The kind of layer. Standard adds up(down(x)) * alpha / dim to the attention and feed-forward "
        "layers of UNet and text encoder.", later=TYPES_LATER, old_values=FORMER_TYPES)  # fmt: skip
    network_dim: Positive = setting(8, "The rank: how many numbers pass between down and up.")
    network_alpha: NotNegative = setting(
        1.0, "What a layer adds is multiplied by alpha / dim; 0 stands for network_dim, so for a factor of 1."
    )
    network_dropout: Share = setting(
        0.0, "The share of the numbers between down and up that is dropped.", effect=not_yet()
    )
    rank_dropout: Share = setting(0.0, "The share of the ranks that is dropped, per sample.", effect=not_yet())
    module_dropout: Share = setting(0.0, "The probability with which a whole layer is left out.", effect=not_yet())
    scale_weight_norms: NotNegative = setting(
        0.0, "The largest norm of a layer's weights after each step.", effect=not_yet()
    )
    network_weights: PathText = setting(
        "", "A LoRA file from which training starts.", effect=not_yet(), old_names={"lora_network_weights": {}}
    )
    dim_from_weights: Switch = setting(False, "Take the ranks from network_weights.", effect=not_yet())


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Ranks and rates for single blocks."""

    block_dims: Text = setting("", "The rank of each block.", effect=not_yet())
    block_alphas: Text = setting("", "The alpha of each block.", effect=not_yet())
    conv_block_dims: Text = setting("", "The rank of the convolutions of each block.", effect=not_yet())
    conv_block_alphas: Text = setting("", "The alpha of the convolutions of each block.", effect=not_yet())
    down_lr_weight: Text = setting("", "The factor of the rate of each block on the way down.", effect=not_yet())
    mid_lr_weight: Text = setting("", "The factor of the rate of the middle blocks.", effect=not_yet())
    up_lr_weight: Text = setting("", "The factor of the rate of each block on the way up.", effect=not_yet())
    block_lr_zero_threshold: Text = setting(
        "", "A block whose factor is not above this is not trained.", effect=not_yet("0", "0.0")
    )


@dataclass(frozen=True, kw_only=True)
class OtherLayers:
    """Options of the other kinds of layer. Standard reads none of them."""

    conv_dim: Count = setting(
        1,
        "The rank of 3 x 3 convolutions.",
        old_names={"conv_dims": {}},
        effect=no_effect(STANDARD_HAS_NO_CONVOLUTIONS, 0),
    )
    conv_alpha: NotNegative = setting(
        1.0,
        "The alpha of 3 x 3 convolutions.",
        old_names={"conv_alphas": {}},
        effect=no_effect(STANDARD_HAS_NO_CONVOLUTIONS, 0.0),
    )
    unit: Positive = setting(
        1,
        "DyLoRA: how many ranks are trained together.",
        effect=no_effect("read by DyLoRA only; LoRA_type is Standard"),
    )
    LyCORIS_preset: Text = setting("full", "Which layers LyCORIS reaches.", effect=no_effect(LYCORIS_ONLY))
    factor: Whole = setting(-1, "LoKr: the size of the smaller factor; -1 chooses.", effect=no_effect(LYCORIS_ONLY))
    decompose_both: Switch = setting(False, "LoKr: low rank for both factors.", effect=no_effect(LYCORIS_ONLY))
    use_cp: Switch = setting(False, "The former name of use_tucker.", effect=no_effect(LYCORIS_ONLY))
    use_tucker: Switch = setting(False, "A Tucker decomposition of convolutions.", effect=no_effect(LYCORIS_ONLY))
    use_scalar: Switch = setting(
        False, "A trained factor in place of zeros at the start.", effect=no_effect(LYCORIS_ONLY)
    )
    rank_dropout_scale: Switch = setting(False, "Scale up what rank_dropout leaves.", effect=no_effect(LYCORIS_ONLY))
    constrain: Number = setting(0.0, "Diag-OFT: the largest change.", effect=no_effect(LYCORIS_ONLY))
    rescaled: Switch = setting(False, "Diag-OFT: a trained scale.", effect=no_effect(LYCORIS_ONLY))
    bypass_mode: Switch = setting(False, "Run base layer and addition apart.", effect=no_effect(LYCORIS_ONLY))
    dora_wd: Switch = setting(False, "DoRA: train magnitude and direction apart.", effect=no_effect(LYCORIS_ONLY))
    train_norm: Switch = setting(False, "Train the norm layers too.", effect=no_effect(LYCORIS_ONLY))
    train_on_input: Switch = setting(True, "iA3: scale the input.", effect=no_effect(LYCORIS_ONLY))
