"""The layers as sd-scripts names them: modules, LyCORIS' algorithms, and the words of network_args."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_SAME = """
    conv_dim conv_alpha rank_dropout module_dropout unit down_lr_weight mid_lr_weight up_lr_weight
    block_lr_zero_threshold block_dims block_alphas conv_block_dims conv_block_alphas loraplus_lr_ratio
    loraplus_unet_lr_ratio loraplus_text_encoder_lr_ratio use_tucker use_cp use_scalar rank_dropout_scale bypass_mode
    dora_wd train_norm rescaled factor decompose_both train_on_input
"""
# A word of network_args -> the key
NETWORK_KEYS: Mapping[str, str] = MappingProxyType(
    {
        **{name: name for name in _SAME.split()},
        "preset": "LyCORIS_preset",
        "block_size": "unit",
        "constraint": "constrain",
        "constrain": "constrain",
        "dropout": "network_dropout",
        "use_conv_cp": "use_cp",
        "weight_decompose": "dora_wd",
    }
)

# Words that sd-scripts' layers know and those here do not, with the value that asks for nothing
WITHOUT: Mapping[str, str] = MappingProxyType(
    {"wd_on_output": "true", "rs_lora": "false", "unbalanced_factorization": "false", "train_t5xxl": "false"}
)
FULL_MATRIX_DIM = 100_000

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "networks.lora": "Standard",
        "networks.lora_fa": "LoRA-FA",
        "networks.dylora": "Kohya DyLoRA",
        "networks.loha": "LyCORIS/LoHa",
        "networks.lokr": "LyCORIS/LoKr",
        "lycoris.kohya": "LyCORIS/LoCon",
        "locon.locon_kohya": "LyCORIS/LoCon",
        "networks.lora_flux": "Flux1",
        "networks.oft_flux": "Flux1 OFT",
        "networks.lora_sd3": "SD3",
        "networks.lora_lumina": "Lumina",
        "networks.lora_hunyuan_image": "HunyuanImage-2.1",
        "networks.lora_anima": "Anima",
    }
)
ALGORITHMS: Mapping[str, str] = MappingProxyType(
    {
        "lora": "LyCORIS/LoCon",
        "locon": "LyCORIS/LoCon",
        "loha": "LyCORIS/LoHa",
        "lokr": "LyCORIS/LoKr",
        "ia3": "LyCORIS/iA3",
        "dylora": "LyCORIS/DyLoRA",
        "glora": "LyCORIS/GLoRA",
        "boft": "LyCORIS/BOFT",
        "diag-oft": "LyCORIS/Diag-OFT",
        "full": "LyCORIS/Native Fine-Tuning",
    }
)


def lora_type(module: str, algorithm: str, *, has_convolutions: bool) -> str:
    """The GUI's LoRA_type for a module and LyCORIS' algo ("" where it is not said); "" where there is none.

    A module of another family of models gives a type that the preset's reader refuses.
    """
    if algorithm:
        return ALGORITHMS.get(algorithm.casefold(), "")
    found = MODULES.get(module, "")
    return "Kohya LoCon" if found == "Standard" and has_convolutions else found
