"""What a diffusion training needs of a GPU's memory, by component, found without a GPU and before the first step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.attention_processor import AttnProcessor2_0, XFormersAttnProcessor
from torch import Tensor

from lora_trainer.engine.activation_memory import Pass, measure, meta_copy
from lora_trainer.engine.optimizer_memory import state_bytes
from lora_trainer.models.recomputation import Rung, recompute_feed_forwards
from lora_trainer.trainers.diffusion.model import DiffusionModel

GIB = 2**30
RUNTIME = round(1.2 * GIB)  # CUDA itself, the kernels' own memory, and gaps between what is in use
ROUNDING = 4  # times a bf16 gradient: the weight and the gradient in float32, for the weight's step
WIDE = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Owner:
    """An optimizer and the names of the weights that are its own."""

    name: str
    options: Mapping[str, Any]
    weights: Collection[str]


@dataclass(frozen=True)
class Choices:
    """What a person can set otherwise without training something else."""

    owners: Sequence[Owner]
    rung: Rung = "nothing"
    fused: bool = False  # weights are updated within the backward pass
    rounded: bool = False  # the trained weights are bf16
    gradients_stay: bool = False  # over several passes of a step, or shared with other processes
    encodes: bool = True  # the VAE is there in every step
    average: bool = False  # a float32 average of the trained weights on the card
    share: float = 1.0  # of the largest batch


@dataclass(frozen=True)
class Needs:
    """Bytes by component, and the most that is needed at one time: not everything is there at once."""

    components: Mapping[str, int]
    peak: int


@dataclass
class DiffusionMemory:
    """The models of a training, of which no weight is touched, and a micro-batch of its largest step.

    `passes` is autocast's format, or float32; `text_stays` says whether the text encoders are on the card while it
    trains.
    """

    model: DiffusionModel
    trained: Collection[str]
    batch: Mapping[str, Any]
    passes: torch.dtype
    vae: Any
    vae_format: torch.dtype
    text_stays: bool = True

    def __post_init__(self) -> None:
        self._weights = dict(self.model.named_parameters())
        self._passes: dict[Rung, Pass] = {}
        self._states: dict[tuple[Any, ...], int] = {}  # of the optimizers that were asked about

    def needs(self, choices: Choices) -> Needs:
        step, found = self._pass(choices), self._resident(choices)
        rounding = ROUNDING * step.largest_gradient if choices.rounded else 0
        one = (1.0 + (ROUNDING if choices.rounded else 0)) if choices.fused else 0.0
        at_once = step.peak(fused=one, gradients_stay=choices.gradients_stay, share=choices.share)
        gradients = step.largest_gradient if choices.fused else step.gradients
        encoding = self._encoding(choices) + (step.gradients if choices.gradients_stay else 0)
        peak = sum(found.values()) + max(at_once, gradients + rounding, encoding)
        found |= {"gradients": gradients, "activations": round(step.activations * choices.share)}
        found |= {"16-bit copies of the weights": step.copies, "the VAE at work": self._encoding(choices)}
        found["CUDA and its kernels"] = RUNTIME
        return Needs({name: size for name, size in found.items() if size}, peak + RUNTIME)

    def _resident(self, choices: Choices) -> dict[str, int]:
        """What lies on the card all the time."""
        sizes = {"UNet": 0, "text encoders": 0}
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            part = "UNet" if name.startswith("unet.") else "text encoders"
            dtype = torch.bfloat16 if choices.rounded and name in self.trained else self._format(name, tensor)
            sizes[part] += tensor.numel() * dtype.itemsize
        if not self.text_stays:
            del sizes["text encoders"]
        if choices.encodes:
            sizes["VAE"] = sum(weight.numel() for weight in self.vae.parameters()) * self.vae_format.itemsize
        sizes["optimizer"] = self._state(choices)
        if choices.average:
            sizes["moving average"] = sum(self._numbers()) * 4
        return sizes

    def _state(self, choices: Choices) -> int:
        def like(name: str) -> tuple[tuple[int, ...], torch.dtype]:
            weight = self._weights[name]
            return tuple(weight.shape), torch.float32 if choices.rounded else weight.dtype

        found = 0
        for each in choices.owners:
            key = each.name, repr(each.options), choices.rounded, frozenset(each.weights)
            if key not in self._states:
                self._states[key] = state_bytes(each.name, each.options, map(like, each.weights))
            found += self._states[key]
        return found

    def _encoding(self, choices: Choices) -> int:
        """The VAE's widest layers are its first: what comes in, what is between, and what comes out."""
        if not choices.encodes:
            return 0
        config = self.vae.config
        images, _, height, width = self.batch["noise"].shape
        halvings, channels = len(config.block_out_channels) - 1, int(config.block_out_channels[0])
        numbers = int(images * height * width * 4**halvings * channels)
        return round(3 * choices.share * numbers * self.vae_format.itemsize)

    def _pass(self, choices: Choices) -> Pass:
        if choices.rung not in self._passes:
            self._passes[choices.rung] = self._measured(choices.rung)
        found = self._passes[choices.rung]
        return found.in_half() if choices.rounded and self._trained_in(torch.float32) else found

    def _measured(self, rung: Rung) -> Pass:
        model = cast(DiffusionModel, meta_copy(self.model, self._format))
        _use_plain_attention(model)
        recompute_feed_forwards(model.unet, rung)
        half = None if self.passes == torch.float32 else self.passes
        batch = {name: _on_meta(value) for name, value in self.batch.items() if name != "layer_seed"}
        inputs, all_of_it = (batch["noise"], batch), rung == "everything"
        return measure(model.train(), inputs, self.trained, half=half, checkpointing=all_of_it)

    def _format(self, name: str, tensor: Tensor) -> torch.dtype:
        """Of a weight on the card, where what is not trained has the format of the passes."""
        return self.passes if name not in self.trained and tensor.dtype in WIDE else tensor.dtype

    def _trained_in(self, dtype: torch.dtype) -> bool:
        return any(self._weights[name].dtype == dtype for name in self.trained)

    def _numbers(self) -> list[int]:
        return [self._weights[name].numel() for name in self.trained]


def vae_format(vae: Any, passes: torch.dtype, *, full: bool = False) -> torch.dtype:
    """The format in which a VAE works on a card."""
    overflows = passes == torch.float16 and vae.config.get("force_upcast", False)
    return torch.float32 if full or overflows else passes


def _use_plain_attention(model: DiffusionModel) -> None:
    """xformers has no kernel for tensors without numbers; it keeps what PyTorch's own keeps."""
    unet: Any = model.unet
    if any(isinstance(each, XFormersAttnProcessor) for each in unet.attn_processors.values()):
        unet.set_attn_processor(AttnProcessor2_0())  # type: ignore[no-untyped-call]


def _on_meta(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_on_meta(each) for each in value)
    return value.to("meta") if torch.is_tensor(value) else value
