"""The preset of the LoRA trainer: the kohya_ss keys, and what follows from them."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from lora_trainer.config.arguments import parse_arguments
from lora_trainer.config.common import CommonPreset
from lora_trainer.config.lora_data import Buckets, Caches, Captions, Data
from lora_trainer.config.lora_loss import NoiseAndLoss
from lora_trainer.config.lora_model import Launch, Model, Performance, Precision
from lora_trainer.config.lora_network import Blocks, Network, OtherLayers
from lora_trainer.config.lora_optimization import LearningRate, Length, Optimizer
from lora_trainer.config.lora_saving import Bookkeeping, HuggingFace, Samples, Saving, States
from lora_trainer.config.lora_validation import Validation

ADAPTIVE_RATE = 1.0
OFF, RESUME = ("", "false"), ("resume", "true")  # resume_from_huggingface: no, and the address stands in `resume`


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", validate_default=False))
class LoraPreset(
    Model, Data, Buckets, Captions, Caches, Network, LearningRate, Optimizer, Length, NoiseAndLoss,
    Precision, Performance, Saving, Samples, Validation, CommonPreset, Blocks, OtherLayers, States, HuggingFace, Launch,
    Bookkeeping,
):  # fmt: skip
    """A checked LoRA preset. What a key means stands beside its field, in the class of its subject."""

    @property
    def resolution_px(self) -> tuple[int, int]:
        """The training size as (height, width); `max_resolution` holds the GUI's (width, height)."""
        width_px, height_px = self.max_resolution
        return height_px, width_px

    @property
    def validates(self) -> bool:
        """Whether pictures are held out and measured."""
        return bool(self.validation_data_dir or self.validation_split)

    @property
    def batch_size(self) -> int:
        """Pictures per device in one pass; the fewest while auto has not been settled."""
        return 1 if self.train_batch_size == "auto" else self.train_batch_size

    @property
    def caches_latents(self) -> bool:
        return self.cache_latents or self.cache_latents_to_disk

    @property
    def caches_text(self) -> bool:
        """Whether captions are encoded once."""
        return self.sdxl and self.sdxl_cache_text_encoder_outputs

    @property
    def attention_kernel(self) -> Literal["xformers", "sdpa", "none"]:
        """xformers, sdpa, or none for the plain formula."""
        return "sdpa" if self.mem_eff_attn and self.xformers == "none" else self.xformers

    @property
    def limits_bucket_sides(self) -> bool:
        """Whether min_bucket_reso and max_bucket_reso are read."""
        return self.enable_bucket and not self.bucket_no_upscale

    @property
    def effective_network_alpha(self) -> float:
        """The alpha of `alpha / dim`; 0 stands for the rank itself."""
        return self.network_alpha or float(self.network_dim)

    @property
    def optimizer_options(self) -> dict[str, object]:
        """The values of optimizer_args by name."""
        return parse_arguments(self.optimizer_args)

    @property
    def lr_scheduler_options(self) -> dict[str, object]:
        """The values of lr_scheduler_args by name."""
        return parse_arguments(self.lr_scheduler_args)

    @property
    def finds_its_own_rate(self) -> bool:
        """Whether the optimizer is adaptive: Prodigy, D-Adaptation, or Adafactor with its relative_step on."""
        name = self.optimizer.rpartition(".")[2]
        if name == "Adafactor":
            return bool(self.optimizer_options.get("relative_step", True))
        return name == "Prodigy" or name.startswith("DAdapt")

    @property
    def unet_rate(self) -> float | None:
        """The learning rate of the UNet, 1.0 under an adaptive optimizer; None means that it is not trained."""
        return self._rate(self.unet_lr, other=self.text_encoder_lr)

    @property
    def text_encoder_rate(self) -> float | None:
        """The learning rate of the text encoders; None means that they are not trained."""
        if self.stop_text_encoder_training_pct < 0:
            return None
        return self._rate(self.text_encoder_lr, other=self.unet_lr)

    @property
    def resumes_from(self) -> str:
        """The state to go on from, a folder or the hub's address of one; empty for none."""
        word = self.resume_from_huggingface.strip()
        return self.resume if word.casefold() in (*OFF, *RESUME) else word

    @property
    def resumes_from_hub(self) -> bool:
        return self.resume_from_huggingface.strip().casefold() not in OFF

    def _rate(self, own: float, other: float) -> float | None:
        if own == 0 and other > 0:
            return None
        if self.finds_its_own_rate:
            return ADAPTIVE_RATE
        return own or self.learning_rate
