"""How captions become what a diffusion step reads: token ids for its text encoders, or what they made of them before.

Letters: b batch, n chunks of a caption, d p widths of the encoded text and of its pooled vector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_trainer.data.latent_cache import Team
from lora_trainer.data.text_cache import TextCache, TextSettings
from lora_trainer.engine.console import counted
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.prompt_weights import has_bare_brackets
from lora_trainer.models.text_encoding import encode_prompts, token_count, tokenize, tokenize_weighted
from lora_trainer.trainers.diffusion.base import WHAT_IS_MISSING

log = logging.getLogger(__name__)

NAMED = 3  # pictures whose captions are shown as examples


@dataclass(frozen=True)
class CaptionTokens:
    """What a batch of captions is for the step: token ids, with weights where they count, or cached conditions."""

    tokenizers: Sequence[Any]
    max_token_length: int
    weighted: bool = False
    cache: TextCache | None = None

    def batch(self, captions: Sequence[str]) -> dict[str, Any]:
        """`text_hidden` (b, 75 n + 2, d) and `text_pooled` (b, p) from the cache; otherwise `token_ids`, one (b, n, 77)
        for each encoder, and `token_weights` likewise."""
        if self.cache is not None:
            return dict(self.cache.batch(captions))
        if not self.weighted:
            return {"token_ids": tuple(self._stacked(tokenizer, captions) for tokenizer in self.tokenizers)}
        pairs = [
            [tokenize_weighted(tokenizer, caption, self.max_token_length) for caption in captions]
            for tokenizer in self.tokenizers
        ]
        return {
            "token_ids": tuple(torch.stack([ids for ids, _ in found]) for found in pairs),
            "token_weights": tuple(torch.stack([weights for _, weights in found]) for found in pairs),
        }

    def _stacked(self, tokenizer: Any, captions: Sequence[str]) -> Tensor:
        return torch.stack([tokenize(tokenizer, caption, self.max_token_length) for caption in captions])


def say_about_captions(captions: Mapping[str, Sequence[str]], tokens: CaptionTokens) -> None:
    """What a person would want to know before training on these texts, which are given by the name of their picture."""
    beyond = sum(any(_count(tokens, text) > tokens.max_token_length for text in texts) for texts in captions.values())
    if beyond:
        log.info(
            "%d of %d captions are longer than max_token_length %d; what is beyond it is not trained",
            beyond,
            len(captions),
            tokens.max_token_length,
        )
    if not tokens.weighted:
        return
    bare = {name: text for name, texts in captions.items() for text in texts if has_bare_brackets(text)}
    if bare:
        shown = [f'{name} "{text}"' for name, text in list(bare.items())[:NAMED]]
        log.info(
            "%d of %d captions have brackets without a number, which weighted_captions reads as a weight of 1.1 or "
            r"1 / 1.1: %s; write \( and \) where they belong to a name",
            len(bare),
            len(captions),
            ", ".join([*shown, "..."] if len(bare) > NAMED else shown),
        )


def _count(tokens: CaptionTokens, caption: str) -> int:
    return max(token_count(tokenizer, caption, tokens.weighted) for tokenizer in tokens.tokenizers)


def with_cache(
    tokens: CaptionTokens,
    captions: Iterable[str],
    base: BaseModel,
    team: Team,
    weights_identity: str,
    folder: Path | None,
) -> CaptionTokens:
    """Encode these captions once, in memory or in the folder, and send the encoders away to the CPU.

    `weights_identity` stands for the base model's weights.
    """
    device, dtype = base.text_encoders[0].device, base.unet.dtype
    distinct = list(dict.fromkeys(captions))
    facts = (weights_identity, dtype, base.text_encoders[0].dtype, tokens.max_token_length, tokens.weighted)
    log.info("encoding %d captions%s", len(distinct), WHAT_IS_MISSING if folder else "")
    with counted("encoding captions", len(distinct)) as advance:
        settings = TextSettings(" ".join(map(str, facts)), folder)
        cache = TextCache.build(distinct, _encoder(tokens, base, device, dtype), settings, team, advance)
    for encoder in base.text_encoders:
        encoder.to("cpu")
    return CaptionTokens(tokens.tokenizers, tokens.max_token_length, tokens.weighted, cache)


def _encoder(
    tokens: CaptionTokens, base: BaseModel, device: torch.device, dtype: torch.dtype
) -> Callable[[str], Mapping[str, Tensor]]:
    """Encodes one caption: `text_hidden` (75 n + 2, d) and, for SDXL, `text_pooled` (p), on the CPU."""

    @torch.no_grad()
    def encode(caption: str) -> Mapping[str, Tensor]:
        found = tokens.batch([caption])
        ids, weights = ([each.to(device) for each in found.get(key, ())] for key in ("token_ids", "token_weights"))
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            condition = encode_prompts(base.kind, base.text_encoders, ids, 1, weights or None)
        parts = {"text_hidden": condition.hidden, "text_pooled": condition.pooled}
        return {name: part[0].cpu() for name, part in parts.items() if part is not None}

    return encode
