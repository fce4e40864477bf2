"""Base models of a megabyte with random weights: the real architectures in small, for tests, examples and dry runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import init_empty_weights
from torch import Tensor

from lora_trainer.atomic import staged_folder
from lora_trainer.draws import torch_generator
from lora_trainer.models.architectures import TextEncoder, build_text_encoder, build_unet, build_vae
from lora_trainer.models.base_configs import Kind, published_configs
from lora_trainer.models.base_file import write_base_file
from lora_trainer.models.base_folder import save_folder
from lora_trainer.models.base_model import BaseModel, own_tokenizer
from lora_trainer.models.checkpoint import Prediction
from lora_trainer.models.ldm_checkpoint import TEXT_PARTS, TextPart
from lora_trainer.models.materialise import materialise

M = TypeVar("M")


class TinyKind(NamedTuple):
    """Which base model is imitated, and what its UNet would predict."""

    kind: Kind
    prediction: Prediction
    zero_terminal_snr: bool


TINY_KINDS: dict[str, TinyKind] = {
    "sdxl": TinyKind("sdxl", "epsilon", False),
    "sdxl-v": TinyKind("sdxl", "v_prediction", True),
    "sd15": TinyKind("sd15", "epsilon", False),
    "sd21": TinyKind("sd21", "epsilon", False),
    "sd21-v": TinyKind("sd21", "v_prediction", False),
}

DTYPE = torch.float16
VOCAB_SIZE = 2048
_SIZE_EMBEDDING = 8  # width per number of SDXL's six (original size, crop, target size)

# Changes to the published configurations; block types, their order and the structure of the text encoders stay.
_SMALL_UNET: dict[str, Any] = {"norm_num_groups": 8, "sample_size": 8}
_SMALL_VAE: dict[str, Any] = {"norm_num_groups": 8, "sample_size": 64, "block_out_channels": [8, 16, 16, 16]}


def _small_text(width: int, layers: int) -> dict[str, Any]:
    """Heads are 8 wide; diffusers' single-file loader wants the projection of the pooled vector to keep the width."""
    return {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 8,
        "bos_token_id": VOCAB_SIZE - 2,
        "eos_token_id": VOCAB_SIZE - 1,
    }


# The same loader tells SDXL by the tenth layer of the second encoder, and the two encoders by their different widths.
_SMALL: dict[Kind, dict[str, dict[str, Any]]] = {
    "sd15": {
        "unet": {"block_out_channels": [8, 16, 32, 32], "attention_head_dim": 1, "cross_attention_dim": 32},
        "text_encoder": _small_text(32, layers=4),
    },
    "sd21": {
        "unet": {"block_out_channels": [8, 16, 32, 32], "attention_head_dim": [1, 2, 4, 4], "cross_attention_dim": 40},
        "text_encoder": _small_text(40, layers=5),
    },
    "sdxl": {
        "unet": {
            "block_out_channels": [8, 16, 32],
            "attention_head_dim": [1, 2, 4],
            "transformer_layers_per_block": [1, 1, 2],
            "cross_attention_dim": 32 + 40,
            "addition_time_embed_dim": _SIZE_EMBEDDING,
            "projection_class_embeddings_input_dim": 40 + 6 * _SIZE_EMBEDDING,
        },
        "text_encoder": _small_text(32, layers=4),
        "text_encoder_2": _small_text(40, layers=10),
    },
}


def make_tiny_model(kind: str, out: Path, single_file: bool, seed: int = 0) -> None:
    """Write a tiny base model: a diffusers folder (which must not exist), or one .safetensors or .ckpt file."""
    base = tiny_base(kind, seed)
    if single_file:
        write_base_file(out, base, DTYPE)
        return
    with staged_folder(out) as staged:
        save_folder(staged, base.kind, base.parts, base.configs["scheduler"])


def tiny_base(kind: str, seed: int = 0) -> BaseModel:
    """A tiny base model in memory, in float16 like its files; `kind` is a key of `TINY_KINDS`."""
    tiny = TINY_KINDS[kind]
    configs = tiny_configs(kind)
    texts = TEXT_PARTS[tiny.kind]

    def text_encoder(text: TextPart) -> TextEncoder:
        return random_model(
            partial(build_text_encoder, configs[text.name], projection=text.projection), text.name, seed
        )

    return BaseModel(
        kind=tiny.kind,
        prediction=tiny.prediction,
        zero_terminal_snr=tiny.zero_terminal_snr,
        configs=configs,
        unet=random_model(partial(build_unet, configs["unet"]), "unet", seed),
        vae=random_model(partial(build_vae, configs["vae"]), "vae", seed),
        text_encoders=tuple(map(text_encoder, texts)),
        tokenizers=tuple(own_tokenizer(text, configs) for text in texts),
    )


def tiny_configs(kind: str) -> dict[str, dict[str, Any]]:
    """The published configurations, made small."""
    tiny = TINY_KINDS[kind]
    configs = published_configs(tiny.kind)
    configs["unet"] |= _SMALL_UNET
    configs["vae"] |= _SMALL_VAE
    for part, changes in _SMALL[tiny.kind].items():
        configs[part] |= changes
    configs["scheduler"]["prediction_type"] = tiny.prediction
    if tiny.zero_terminal_snr:
        configs["scheduler"] |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return configs


# ------------------------------------------------------------------------------------------------------- the weights

_SPREAD = math.sqrt(3)  # of a uniform distribution with the standard deviation 1
_STD: dict[str, float] = {  # by the end of the name; elsewhere a layer keeps the variance of what it reads
    "token_embedding.weight": 0.5,
    "position_embedding.weight": 0.1,
    "logit_scale": 0.0,
}
_GAIN_LAST = 0.3  # keeps predictions well inside -1..1, so that an untrained model starts with a loss near 1
_LAST = "conv_out.weight"
_NORM_STD, _BIAS_STD = 0.1, 0.02


def random_model(build: Callable[[], M], part: str, seed: int, dtype: torch.dtype = DTYPE) -> M:
    """A model with random weights that follow from the seed, the part's name and their own."""
    with init_empty_weights():
        empty: Any = build()
    state = {name: _weights(tensor.shape, part, name, seed) for name, tensor in empty.state_dict().items()}
    if part == "vae":
        _scale_latents(state, empty.config.scaling_factor)
    return materialise(build, state, dtype, f"tiny {part}")


def _weights(shape: torch.Size, part: str, name: str, seed: int) -> Tensor:
    """Random values that depend on the names and the seed only.

    Uniform, because PyTorch's normal numbers differ in the last bits between processors.
    """
    values = torch.rand(shape, generator=torch_generator("tiny model", seed, part, name)).sub_(0.5).mul_(2 * _SPREAD)
    fixed = next((std for end, std in _STD.items() if name.endswith(end)), None)
    if fixed is not None:
        return values * fixed
    if len(shape) > 1:
        return values * (_GAIN_LAST if name.endswith(_LAST) else 1.0) / math.sqrt(math.prod(shape[1:]))
    return 1 + values * _NORM_STD if name.endswith("weight") else values * _BIAS_STD


def _scale_latents(vae: dict[str, Tensor], scaling_factor: float) -> None:
    """Let the encoder give latents with a standard deviation near 1 after scaling, and hardly any noise in them."""
    weight, bias = vae["quant_conv.weight"], vae["quant_conv.bias"]  # (8, 8, 1, 1), (8): four means, four log variances
    means = weight.shape[0] // 2
    weight[:means] /= _GAIN_LAST * scaling_factor
    bias[means:] -= 8
