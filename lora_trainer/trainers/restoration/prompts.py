"""The prompts of a restoration as the UNet reads them: encoded once where they are few.

Letters: b batch, n positions of an encoded prompt, d its width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lora_trainer.models.base_configs import Kind
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.text_encoding import encode_prompts, tokenize

MOST_KEPT = 256  # of encoded prompts, 150 KiB each in half precision
AT_ONCE = 16


@dataclass
class Prompts:
    """`prompts(["a", "b"])` is (b, n, d) on the device; there is no classifier-free guidance."""

    kind: Kind
    tokenizer: Any
    encoder: Any
    device: torch.device
    kept: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.kept]
        known = {**self.kept, **self._encoded(unknown)}
        return torch.stack([known[prompt] for prompt in prompts])

    @torch.no_grad()
    def _encoded(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for first in range(0, len(prompts), AT_ONCE):
            part = prompts[first : first + AT_ONCE]
            ids = torch.stack([tokenize(self.tokenizer, prompt) for prompt in part]).to(self.encoder.device)
            hidden = encode_prompts(self.kind, [self.encoder], [ids]).hidden.to(self.device)
            found |= dict(zip(part, hidden, strict=True))
        return found


def prepared_prompts(base: BaseModel, prompts: Iterable[str], device: torch.device) -> Prompts:
    """The encoder on the device, or on the CPU when all prompts that are known to come are encoded now."""
    (encoder,), (tokenizer,) = base.text_encoders, base.tokenizers
    encoder.to(device)
    found = Prompts(base.kind, tokenizer, encoder, device)
    distinct = list(dict.fromkeys(prompts))
    if len(distinct) <= MOST_KEPT:
        found.kept = found._encoded(distinct)
        encoder.to("cpu")
    return found
