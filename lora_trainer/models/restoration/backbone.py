"""The frozen network through which the discriminator of restoration looks at pictures: CLIP's ConvNeXt, from a file.

Letters: b batch, c channels, h w pixels.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.models.materialise import materialise
from lora_trainer.models.restoration import hub_files
from lora_trainer.models.restoration.convnext import ConvNextEncoder, ConvNextSizes, sizes_in
from lora_trainer.models.restoration.hub_files import NotFetched
from lora_trainer.models.tensor_files import open_tensors

STAND_IN = "stand-in"
REPOSITORY = "laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-soup"
ADDRESS = f"https://huggingface.co/{REPOSITORY}"
FILE_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
CURE = f"download {FILE_NAMES[-1]} from {ADDRESS} and write its path, or {STAND_IN} for a tiny random one"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
STAND_IN_SIZES = ConvNextSizes((1, 1, 2, 1), (8, 16, 32, 64), 32)
_PREFIX = "visual."  # beside which the files hold a text encoder
_SPREAD = math.sqrt(3)  # of a uniform distribution with the standard deviation 1


class ClipBackbone(nn.Module):
    """Pictures (b, 3, h, w) from -1 to 1, at their own size -> three maps (b, c, h', w') and the embedding (b, c).

    Maps are 4, 8 and 16 times smaller than the picture. The weights never change; gradients pass to the pictures.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: ConvNextEncoder, sizes: ConvNextSizes) -> None:
        super().__init__()
        self.encoder = encoder
        self.channels = (*sizes.widths[:-1], sizes.embedding)  # of what it gives, in order
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        normalised = (images * 0.5 + 0.5 - self.mean) / self.std
        found: list[Tensor] = self.encoder(normalised.to(next(self.encoder.parameters()).dtype))
        return found


def find_backbone(place: str, key: str) -> Path | None:
    """The file that a preset's key stands for, itself, by its folder or by a name on the hub; None for the stand-in.

    Without a place it is CLIP's ConvNeXt-XXL on the hub. What was not downloaded before is downloaded. Raises Refusal.
    """
    if place == STAND_IN:
        return None
    path = Path(place)
    if place and path.is_file():
        return path
    if place and path.is_dir():
        found = [path / name for name in FILE_NAMES if (path / name).is_file()]
        if not found:
            raise Refusal(f"{key}: the folder {place} holds none of {', '.join(FILE_NAMES)}; {CURE}")
        return found[0]
    if not place or hub_files.is_hub_name(place):
        return _of_hub(place, key)
    raise Refusal(f"{key}: there is no file {place}; {CURE}")


def _of_hub(place: str, key: str) -> Path:
    repository = place or REPOSITORY
    if before := hub_files.downloaded(repository, FILE_NAMES):
        return before
    try:
        sizes = hub_files.listed(repository)
        names = [name for name in FILE_NAMES if name in sizes]
        if not names:
            raise NotFetched(f"it holds none of {', '.join(FILE_NAMES)}")
        hub_files.tell_download(repository, {names[0]: sizes[names[0]]})
        return hub_files.fetched(repository, names[:1]) / names[0]
    except NotFetched as error:
        given = f"there is no file or folder {place} here" if place else "no CLIP ConvNeXt is given"
        lacks = f"{given}, none is among the hub's downloads"
        raise Refusal(f"{key}: {lacks}, and the hub does not give {repository} ({error}); {CURE}") from error


def open_backbone(place: str, key: str, dtype: torch.dtype = torch.float32) -> ClipBackbone:
    """The network of an open_clip file of any ConvNeXt, whose sizes follow from it, or the stand-in by its name.

    Raises Refusal, which begins with the preset's key.
    """
    path = find_backbone(place, key)
    if path is None:
        return _stand_in(dtype)
    with open_tensors(path) as file:
        names = {name.removeprefix(_PREFIX): name for name in file.shapes if name.startswith(_PREFIX)}
        sizes = sizes_in({short: file.shapes[name] for short, name in names.items()})
        if sizes is None:
            raise Refusal(
                f"{key}: {path} holds no ConvNeXt image encoder of open_clip (visual.trunk.stages...); "
                f"get {FILE_NAMES[-1]} from {ADDRESS}"
            )
        state = {short: file.read(name).to(dtype) for short, name in names.items()}
    return ClipBackbone(materialise(lambda: ConvNextEncoder(sizes), state, dtype, f"{key}: {path}"), sizes)


def _stand_in(dtype: torch.dtype) -> ClipBackbone:
    """Always the same random weights, which keep the variance of what they read; what it sees means little."""
    encoder = ConvNextEncoder(STAND_IN_SIZES)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            generator = torch_generator("stand-in backbone", name)
            values = torch.rand(weight.shape, generator=generator).sub_(0.5).mul_(2 * _SPREAD)
            if weight.dim() > 1:
                weight.copy_(values / math.sqrt(math.prod(weight.shape[1:])))
            else:
                weight.copy_(values * 0.02 if name.endswith("bias") else 1 + values * 0.1)
    return ClipBackbone(encoder.to(dtype), STAND_IN_SIZES)
