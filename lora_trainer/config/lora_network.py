"""The keys of a LoRA preset about the layers that are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lora_trainer.config.kinds import (
    AnyCase,
    Count,
    NotNegative,
    PathText,
    Positive,
    Share,
    Switch,
    Text,
    Whole,
)
from lora_trainer.config.setting import setting

FORMER_TYPES = {
    **{name: f"LyCORIS/{name}" for name in ("LoCon", "LoHa", "LoKr", "iA3")},
    **{f"Kohya {name}": f"LyCORIS/{name}" for name in ("LoHa", "LoKr")},
}


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
        "layers of UNet and text encoder; Kohya LoCon adds 3 x 3 convolutions; LoRA-FA trains up alone; Kohya DyLoRA "
        "trains all ranks below network_dim at once. The LyCORIS types are other algebras, for which LyCORIS_preset "
        "says which layers they reach.", old_values=FORMER_TYPES)  # fmt: skip
    network_dim: Positive = setting(
        8,
        "The rank: how many numbers pass between down and up. For Diag-OFT and BOFT the size of a block, for LoKr "
        "100000 stands for a full matrix.",
    )
    network_alpha: NotNegative = setting(
        1.0, "What a layer adds is multiplied by alpha / dim; 0 stands for network_dim, so for a factor of 1."
    )
    network_dropout: Share = setting(0.0, "The share of the numbers between down and up that is dropped.")
    rank_dropout: Share = setting(0.0, "The share of the ranks that is dropped, per sample.")
    module_dropout: Share = setting(0.0, "The probability with which a whole layer is left out of a pass.")
    scale_weight_norms: NotNegative = setting(
        0.0,
        "The largest norm that a layer's change of the weights may have after a step; what is longer is shrunk. "
        "0 leaves it; 1 is usual.",
    )
    fused_lora: Switch = setting(
        True,
        "Compute a layer and its LoRA as one function, with fewer copies: Standard, Kohya LoCon and LoRA-FA on linear "
        "layers, and on 1 x 1 convolutions whose input has its channels last, while nothing is dropped. Results are "
        "equal up to rounding.",
    )
    network_weights: PathText = setting(
        "",
        "A LoRA file from which training starts; its layers that are not trained here are ignored.",
        old_names={"lora_network_weights": {}},
    )
    dim_from_weights: Switch = setting(
        False, "Take the layers, ranks and alphas from network_weights instead of network_dim and network_alpha."
    )


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Ranks and rates for single blocks of the UNet: 25 for SD 1.x and 2.x, 23 for SDXL."""

    block_dims: Text = setting(
        "", "The rank of each block, as numbers between commas, from the input to the output; 0 leaves a block out."
    )
    block_alphas: Text = setting("", "The alpha of each block, as for block_dims.")
    conv_block_dims: Text = setting(
        "", "The rank of the 3 x 3 convolutions of each block; asks for convolutions whatever LoRA_type says."
    )
    conv_block_alphas: Text = setting("", "The alpha of the 3 x 3 convolutions of each block.")
    down_lr_weight: Text = setting(
        "",
        "The factor of unet_lr for each block on the way down (12, SDXL 9): numbers between commas, or cosine, sine, "
        "linear, reverse_linear or zeros, with a number to add: sine+.25.",
    )
    mid_lr_weight: Text = setting("", "The same for the middle: 1 block, SDXL 3.")
    up_lr_weight: Text = setting("", "The same for the way up: 12 blocks, SDXL 9.")
    block_lr_zero_threshold: NotNegative = setting(0.0, "A block whose factor is not above this is not trained.")


@dataclass(frozen=True, kw_only=True)
class OtherLayers:
    """Options of single kinds of layer."""

    conv_dim: Count = setting(
        1,
        "The rank of 3 x 3 convolutions, for Kohya LoCon, Kohya DyLoRA and LyCORIS; 0 leaves them out.",
        old_names={"conv_dims": {}},
    )
    conv_alpha: NotNegative = setting(
        1.0, "The alpha of 3 x 3 convolutions; 0 stands for conv_dim.", old_names={"conv_alphas": {}}
    )
    unit: Positive = setting(1, "DyLoRA: how many ranks are trained together.")
    LyCORIS_preset: Text = setting(
        "full",
        "Which layers LyCORIS reaches: full, full-lin, attn-mlp, attn-only, unet-only, unet-transformer-only, "
        "unet-convblock-only, ia3, or a .toml file.",
    )
    factor: Whole = setting(-1, "LoKr: the size of the smaller factor; -1 chooses the most even split.")
    decompose_both: Switch = setting(False, "LoKr: low rank for both factors.")
    use_cp: Switch = setting(False, "The former name of use_tucker; either turns it on.")
    use_tucker: Switch = setting(
        False, "LoCon, LoHa, LoKr: a Tucker decomposition of 3 x 3 convolutions, which keeps the kernel apart."
    )
    use_scalar: Switch = setting(
        False, "LoCon, LoHa, LoKr, GLoRA: begin with random factors and a trained scalar that is 0, not with zeros."
    )
    rank_dropout_scale: Switch = setting(False, "LyCORIS: scale up what rank_dropout leaves.")
    constrain: NotNegative = setting(
        0.0, "Diag-OFT and BOFT: the largest rotation, as a norm per output; 0 is without a limit."
    )
    rescaled: Switch = setting(False, "Diag-OFT and BOFT: train a scale of each output too.")
    bypass_mode: Switch = setting(
        False, "LyCORIS: apply base layer and addition one after the other instead of adding up their weights."
    )
    dora_wd: Switch = setting(
        False, "LoCon, LoHa, LoKr: DoRA, which trains the length and the direction of the weights apart."
    )
    train_norm: Switch = setting(False, "LyCORIS: train the norm layers too.")
    train_on_input: Switch = setting(True, "iA3: scale the inputs of a layer instead of its outputs.")
