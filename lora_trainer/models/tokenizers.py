"""CLIP's tokenizer, built from the vocabulary that comes with the package, so that nothing is downloaded."""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

from transformers import CLIPTokenizer

VOCABULARY = Path(__file__).parent / "bases" / "clip_bpe_16e6.txt.gz"
VOCAB_SIZE = 49408
MAX_POSITIONS = 77
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
PAD_OPENAI, PAD_OPEN_CLIP = END, "!"  # the latter is id 0

_END_OF_WORD = "</w>"
_BYTE_SYMBOLS = 256
_FIXED_TOKENS = 2 * _BYTE_SYMBOLS + 2  # every byte inside a word and at its end; BEGIN and END


def clip_tokenizer(vocab_size: int = VOCAB_SIZE, pad: str = PAD_OPENAI) -> CLIPTokenizer:
    """The tokenizer of every Stable Diffusion text encoder; they differ only in the padding.

    A smaller `vocab_size` (514..49408) keeps the first merges, for tiny models: any text can still be told apart, in
    more and shorter pieces. BEGIN and END always are the last two ids.
    """
    if not _FIXED_TOKENS <= vocab_size <= VOCAB_SIZE:
        raise ValueError(f"vocab_size is {vocab_size}; it must be {_FIXED_TOKENS}..{VOCAB_SIZE}")
    merges = list(_merges()[: vocab_size - _FIXED_TOKENS])
    symbols = _byte_symbols()
    words = [*symbols, *(symbol + _END_OF_WORD for symbol in symbols)]
    words += [*(left + right for left, right in merges), BEGIN, END]
    return CLIPTokenizer(
        vocab={word: token for token, word in enumerate(words)},
        merges=merges,  # type: ignore[arg-type]  # pairs; strings with a blank are for files
        pad_token=pad,
        model_max_length=MAX_POSITIONS,
    )


@lru_cache(maxsize=1)
def _merges() -> tuple[tuple[str, str], ...]:
    """The learned merges, most frequent first. The published file goes on, but CLIP was trained with these only."""
    with gzip.open(VOCABULARY, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : 1 + VOCAB_SIZE - _FIXED_TOKENS]  # the first line is a title
    return tuple((left, right) for left, right in (line.split() for line in lines))


def _byte_symbols() -> list[str]:
    """One visible character per byte: printable Latin-1 stands for itself, the others follow from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    substitutes = range(_BYTE_SYMBOLS, 2 * _BYTE_SYMBOLS - len(printable))
    return [chr(code) for code in (*printable, *substitutes)]
