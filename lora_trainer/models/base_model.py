"""Loading a base model, from a single file, a diffusers folder or a description to modules in memory, all offline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTokenizer

from lora_trainer.errors import Refusal
from lora_trainer.models.architectures import TextEncoder, build_text_encoder, build_unet, build_vae, text_encoder_class
from lora_trainer.models.base_configs import Configs, Kind, configs_from_metadata, published_configs
from lora_trainer.models.base_folder import load_part, load_tokenizer, read_configs
from lora_trainer.models.checkpoint import LATENT_CHANNELS, Checkpoint, Prediction
from lora_trainer.models.detect import confirm, detect_tensors
from lora_trainer.models.detect_folder import PARTS
from lora_trainer.models.fresh_description import read_description
from lora_trainer.models.fresh_model import initialised
from lora_trainer.models.fresh_vae import let_colours_through
from lora_trainer.models.latent_scale import narrow_posterior
from lora_trainer.models.ldm_checkpoint import TEXT_PARTS, TextPart, to_diffusers
from lora_trainer.models.materialise import materialise
from lora_trainer.models.state_files import read_state_file
from lora_trainer.models.tokenizers import PAD_OPEN_CLIP, PAD_OPENAI, clip_tokenizer
from lora_trainer.models.vae_file import load_vae

FIRST_LOG_VARIANCE = -6.0  # of a new VAE's latents: a standard deviation of 0.05, where their means are about as large


@dataclass(frozen=True)
class BaseModel:
    """A base model in memory, on the CPU, frozen. SDXL has two text encoders and tokenizers, the others one."""

    kind: Kind
    prediction: Prediction
    zero_terminal_snr: bool
    configs: Configs
    unet: Any  # a UNet2DConditionModel; to mypy, diffusers' classes have none of PyTorch's methods
    vae: Any  # an AutoencoderKL
    text_encoders: tuple[Any, ...]  # of CLIPTextModel and CLIPTextModelWithProjection
    tokenizers: tuple[CLIPTokenizer, ...]

    @property
    def parts(self) -> dict[str, Any]:
        """Models and tokenizers by the names of their folders in a diffusers folder."""
        found: dict[str, Any] = {"unet": self.unet, "vae": self.vae}
        for text, encoder, tokenizer in zip(TEXT_PARTS[self.kind], self.text_encoders, self.tokenizers, strict=True):
            found |= {text.name: encoder, text.tokenizer: tokenizer}
        return found


class Dtypes(NamedTuple):
    """In which precision the parts are kept."""

    models: torch.dtype
    vae: torch.dtype


def load_base_model(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype = torch.float32,
    vae: Path | None = None,
    vae_dtype: torch.dtype = torch.float32,
) -> BaseModel:
    """Load what `detect` found; `vae` (a file or folder) takes the place of the model's own.

    The VAE stays in float32 unless told otherwise: SDXL's gives NaN in half precision. The scale of the latents is
    `base.vae.config.scaling_factor`. Raises Refusal for whatever is wrong with the files.
    """
    return _LOADERS[checkpoint.layout](checkpoint, Dtypes(dtype, vae_dtype), vae)


def _from_single_file(checkpoint: Checkpoint, dtypes: Dtypes, vae: Path | None) -> BaseModel:
    path = checkpoint.path
    file = read_state_file(path)
    found = confirm(checkpoint, detect_tensors(path, file.shapes, file.metadata))
    kind = _known(found)
    carried = configs_from_metadata(path, file.metadata)
    configs = carried[1] if carried else published_configs(kind)
    parts = to_diffusers(kind, configs, file.tensors)
    file.tensors.clear()  # and `pop` below, so that a part is not held twice once it is cast
    if vae is None and not parts["vae"]:
        raise Refusal(f'{path}: there is no VAE in this checkpoint; give one with "vae"')

    def text_encoder(part: TextPart) -> TextEncoder:
        build = partial(build_text_encoder, configs[part.name], projection=part.projection)
        return materialise(build, parts.pop(part.name), dtypes.models, f"{path} ({part.name})")

    return BaseModel(
        kind=kind,
        prediction=found.prediction or "epsilon",
        zero_terminal_snr=found.zero_terminal_snr,
        configs=configs,
        unet=materialise(partial(build_unet, configs["unet"]), parts.pop("unet"), dtypes.models, f"{path} (unet)"),
        vae=load_vae(vae, configs["vae"], dtypes.vae)
        if vae
        else materialise(partial(build_vae, configs["vae"]), parts.pop("vae"), dtypes.vae, f"{path} (vae)"),
        text_encoders=tuple(map(text_encoder, TEXT_PARTS[kind])),
        tokenizers=tuple(own_tokenizer(part, configs) for part in TEXT_PARTS[kind]),
    )


def _from_folder(checkpoint: Checkpoint, dtypes: Dtypes, vae: Path | None) -> BaseModel:
    folder = checkpoint.path
    kind = _known(checkpoint)
    configs = {"scheduler": published_configs(kind)["scheduler"], **read_configs(folder, PARTS[kind])}

    def text_encoder(part: TextPart) -> TextEncoder:
        return load_part(text_encoder_class(part.projection), folder / part.name, dtypes.models)

    def tokenizer(part: TextPart) -> CLIPTokenizer:
        found = load_tokenizer(folder / part.tokenizer, configs[part.name]["vocab_size"])
        return found or own_tokenizer(part, configs)

    return BaseModel(
        kind=kind,
        prediction=checkpoint.prediction or "epsilon",
        zero_terminal_snr=checkpoint.zero_terminal_snr,
        configs=configs,
        unet=load_part(UNet2DConditionModel, folder / "unet", dtypes.models),
        vae=load_vae(vae or folder / "vae", configs["vae"], dtypes.vae),
        text_encoders=tuple(map(text_encoder, TEXT_PARTS[kind])),
        tokenizers=tuple(map(tokenizer, TEXT_PARTS[kind])),
    )


def _from_description(checkpoint: Checkpoint, dtypes: Dtypes, vae: Path | None) -> BaseModel:
    """A model with random weights, but for a VAE that is trained already."""
    fresh = read_description(checkpoint.path)
    configs, seed = fresh.configs, fresh.seed
    own_vae = vae or fresh.vae
    loaded_vae: Any
    if own_vae is not None:
        loaded_vae = load_vae(own_vae, configs["vae"], dtypes.vae)
        configs["vae"] |= {key: value for key, value in loaded_vae.config.items() if not key.startswith("_")}
        if configs["vae"]["latent_channels"] != LATENT_CHANNELS:
            raise Refusal(f"{own_vae}: this VAE's latents do not have {LATENT_CHANNELS} channels; give another one")
    else:
        loaded_vae = initialised(partial(build_vae, configs["vae"]), seed, "vae", dtypes.vae)
        let_colours_through(loaded_vae)
        narrow_posterior(loaded_vae, FIRST_LOG_VARIANCE)

    def text_encoder(part: TextPart) -> TextEncoder:
        build = partial(build_text_encoder, configs[part.name], projection=part.projection)
        return initialised(build, seed, part.name, dtypes.models)

    return BaseModel(
        kind=fresh.kind,
        prediction=checkpoint.prediction or fresh.prediction,
        zero_terminal_snr=fresh.zero_terminal_snr,
        configs=configs,
        unet=initialised(partial(build_unet, configs["unet"]), seed, "unet", dtypes.models),
        vae=loaded_vae,
        text_encoders=tuple(map(text_encoder, TEXT_PARTS[fresh.kind])),
        tokenizers=tuple(own_tokenizer(part, configs) for part in TEXT_PARTS[fresh.kind]),
    )


_LOADERS: dict[str, Callable[[Checkpoint, Dtypes, Path | None], BaseModel]] = {
    "single_file": _from_single_file,
    "folder": _from_folder,
    "description": _from_description,
}


def _known(checkpoint: Checkpoint) -> Kind:
    if checkpoint.kind is None:
        raise ValueError(f"{checkpoint.path}: only a PyTorch file may be of unknown kind")
    return checkpoint.kind


def own_tokenizer(part: TextPart, configs: Configs) -> CLIPTokenizer:
    """The tokenizer that comes with the package, as this text encoder wants it."""
    vocab_size: int = configs[part.name]["vocab_size"]
    return clip_tokenizer(vocab_size, PAD_OPEN_CLIP if part.open_clip else PAD_OPENAI)
