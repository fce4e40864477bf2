"""The networks of a diffusion training as one module: from captions and noisy latents to noise or velocity.

Letters: b batch, n chunks, c channels, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.models.base_configs import Kind
from lora_trainer.models.text_encoding import TextCondition, encode_prompts


class DiffusionModel(nn.Module):
    """What one optimizer trains, so that DDP sees it as one module."""

    def __init__(self, kind: Kind, unet: nn.Module, text_encoders: Sequence[nn.Module], clip_skip: int) -> None:
        super().__init__()
        self.kind = kind
        self.clip_skip = clip_skip
        self.unet = unet
        self.text_encoders = nn.ModuleList(text_encoders)

    def forward(self, noisy: Tensor, batch: dict[str, Any]) -> Tensor:
        """(b, c, h, w) the prediction for the noisy latents of a micro-batch."""
        if "layer_seed" in batch:  # dropout takes PyTorch's own generators; checkpointing saves and restores them
            torch.manual_seed(batch["layer_seed"])
        condition = self.condition(batch)
        hidden = condition.hidden.to(noisy.device)
        if "text_noise" in batch:
            hidden = hidden + batch["text_noise"].to(hidden)
        extra = None
        if condition.pooled is not None:
            extra = {"text_embeds": condition.pooled, "time_ids": batch["size_condition"]}
        prediction: Tensor = self.unet(noisy, batch["timestep"], hidden, added_cond_kwargs=extra, return_dict=False)[0]
        return prediction

    def condition(self, batch: dict[str, Any]) -> TextCondition:
        if "token_ids" not in batch:
            return TextCondition(batch["text_hidden"], batch.get("text_pooled"))
        trained = any(weight.requires_grad for weight in self.text_encoders.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            ids, weights = batch["token_ids"], batch.get("token_weights")
            return encode_prompts(self.kind, list(self.text_encoders), ids, self.clip_skip, weights)
