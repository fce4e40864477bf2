"""How long a caption is for the text encoders, and what of it they never see: for a look at a data set."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from lora_trainer.models.text_encoding import text_beyond, token_count
from lora_trainer.models.tokenizers import clip_tokenizer


def caption_measure(limit: int, weighted: bool = False) -> Callable[[str], tuple[int, str]]:
    """Gives the number of CLIP's tokens of a text, and what is beyond the limit of them."""
    tokenizer = _tokenizer()

    def measure(text: str) -> tuple[int, str]:
        count = token_count(tokenizer, text, weighted)
        return count, text_beyond(tokenizer, text, limit, weighted).strip(" ,") if count > limit else ""

    return measure


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    return clip_tokenizer()
