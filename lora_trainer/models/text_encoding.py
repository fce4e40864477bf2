"""Captions to token ids, and token ids to what the UNet's cross attention reads.

b batch, n chunks of 75 words, t = 77 positions of a chunk (BOS, 75 words, EOS), d width, p width of the pooled vector.
"Words" are the tokenizer's pieces, not English words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from lora_trainer.models.base_configs import Kind
from lora_trainer.models.prompt_weights import weighted_fragments

CHUNK_WORDS = 75
CHUNK_POSITIONS = CHUNK_WORDS + 2

SDXL_SKIP = 2  # SDXL was trained on the penultimate layer of both encoders, whatever clip_skip says


@dataclass(frozen=True)
class TextCondition:
    """What the UNet is told about a batch of captions."""

    hidden: Tensor  # (b, 75 n + 2, d)
    pooled: Tensor | None  # (b, p), SDXL only


def words_of(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text without BOS and EOS, however many there are."""
    # Split, because the second encoder pads with "!": "wow!" would get the padding instead of the word "!".
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids
    return ids


def token_count(tokenizer: Any, text: str, weighted: bool = False) -> int:
    """How many of `max_token_length` a text needs; what is beyond that, `tokenize` drops."""
    texts = [fragment.text for fragment in weighted_fragments(text)] if weighted else [text]
    return sum(len(words_of(tokenizer, each)) for each in texts)


def text_beyond(tokenizer: Any, text: str, max_token_length: int, weighted: bool = False) -> str:
    """The part of a text that `tokenize` drops."""
    texts = [fragment.text for fragment in weighted_fragments(text)] if weighted else [text]
    left = max_token_length
    for place, each in enumerate(texts):
        found = tokenizer(
            each, add_special_tokens=False, split_special_tokens=True, verbose=False, return_offsets_mapping=True
        )
        if len(found.input_ids) > left:
            start: int = found.offset_mapping[left][0]
            return "".join([each[start:], *texts[place + 1 :]])
        left -= len(found.input_ids)
    return ""


def tokenize(tokenizer: Any, text: str, max_token_length: int = CHUNK_WORDS) -> Tensor:
    """Cut a text into chunks that each look like a short prompt: BOS, up to 75 words, EOS, padding.

    `max_token_length` is 75, 150 or 225. Returns (n, 77) int64, with as many chunks as that allows even when the text
    is shorter, so that every caption of a batch has the same shape. Tags are not kept together at a cut.

    Equal to kohya's cutting of one long padded row, except that a "!" (id 0) at the edge of a chunk stays a word also
    where id 0 is the padding.
    """
    return _chunks(tokenizer, words_of(tokenizer, text), max_token_length)


def tokenize_weighted(tokenizer: Any, text: str, max_token_length: int = CHUNK_WORDS) -> tuple[Tensor, Tensor]:
    """As `tokenize`, with `(word:1.3)` and the like taken as weights.

    Returns ids and weights, (n, 77) each; BOS, EOS and padding weigh 1. Words never reach over the edge of a weight.
    """
    words: list[int] = []
    weights: list[float] = []
    for fragment in weighted_fragments(text):
        found = words_of(tokenizer, fragment.text)
        words += found
        weights += [fragment.weight] * len(found)
    ids = _chunks(tokenizer, words, max_token_length)
    weights = (weights + [1.0] * max_token_length)[:max_token_length]
    rows = torch.ones(ids.shape)
    rows[:, 1:-1] = torch.tensor(weights).view(-1, CHUNK_WORDS)
    return ids, rows


def _chunks(tokenizer: Any, words: list[int], max_token_length: int) -> Tensor:
    starts = range(0, max_token_length, CHUNK_WORDS)
    return torch.tensor([_chunk(tokenizer, words[start : start + CHUNK_WORDS]) for start in starts], dtype=torch.int64)


def _chunk(tokenizer: Any, words: list[int]) -> list[int]:
    padding = [tokenizer.pad_token_id] * (CHUNK_WORDS - len(words))
    return [tokenizer.bos_token_id, *words, tokenizer.eos_token_id, *padding]


def encode_prompts(
    kind: Kind,
    text_encoders: Sequence[nn.Module],
    token_ids: Sequence[Tensor],
    clip_skip: int = 1,
    token_weights: Sequence[Tensor] | None = None,
) -> TextCondition:
    """Encode captions as the checkpoint's family was trained.

    `token_ids` holds one (b, n, 77) tensor per encoder. `clip_skip` counts layers from the end, 1 (or 0) being the
    last one; the final layer norm follows. SDXL ignores it: the penultimate layers of both encoders side by side,
    without the norm, and the second encoder's projected EOS of the first chunk.

    `token_weights`, of the same shapes, multiply what comes out at each position; the pooled vector stays, and so does
    the mean, which some webuis restore afterwards.
    """
    weights: Sequence[Tensor | None] = token_weights or [None] * len(token_ids)
    if kind == "sdxl":
        parts = [_encode(encoder, ids) for encoder, ids in zip(text_encoders, token_ids, strict=True)]
        layers = [part.hidden_states[-SDXL_SKIP] for part in parts]
        joined = [_joined(layer, token_ids[0], weight) for layer, weight in zip(layers, weights, strict=True)]
        batch, chunks, _ = token_ids[1].shape
        return TextCondition(torch.cat(joined, dim=-1), parts[1].text_embeds.view(batch, chunks, -1)[:, 0])
    (encoder,), (ids,), (weight,) = text_encoders, token_ids, weights
    skipped = _encode(encoder, ids).hidden_states[-max(1, clip_skip)]
    return TextCondition(_joined(_final_layer_norm(encoder)(skipped), ids, weight), None)


def reachable_layers(kind: Kind, text_encoder_index: int, layers: int, clip_skip: int = 1) -> range:
    """Which of an encoder's layers have a part in the result of `encode_prompts`; the others can receive no gradient.

    `layers` is the encoder's `num_hidden_layers`. SDXL's second encoder needs all of them for the pooled vector.
    """
    if kind == "sdxl":
        return range(layers if text_encoder_index == 1 else layers - SDXL_SKIP + 1)
    return range(layers - max(1, clip_skip) + 1)


def _encode(encoder: nn.Module, ids: Tensor) -> Any:
    # hidden_states: (b n, 77, d) before the first layer and after each layer, the last one still without its norm
    return encoder(ids.flatten(0, 1), output_hidden_states=True)


def _joined(hidden: Tensor, ids: Tensor, weights: Tensor | None) -> Tensor:
    """(b, 75 n + 2, d), each position times its weight, in the number format that it had."""
    joined = _join_chunks(hidden, ids)
    if weights is None:
        return joined
    return (joined * _join_chunks(weights.flatten(0, 1).unsqueeze(-1), ids)).to(joined.dtype)


def _join_chunks(hidden: Tensor, ids: Tensor) -> Tensor:
    """(b n, 77, d) to (b, 75 n + 2, d): the first BOS, the words of every chunk, the last position."""
    batch, chunks, _ = ids.shape
    hidden = hidden.view(batch, chunks, *hidden.shape[1:])
    words = hidden[:, :, 1:-1].flatten(1, 2)
    return torch.cat([hidden[:, 0, :1], words, hidden[:, -1, -1:]], dim=1)


def _final_layer_norm(encoder: nn.Module) -> nn.Module:
    """Transformers 5.6 took the level `text_model` out of CLIPTextModel; CLIPTextModelWithProjection still has it."""
    return cast(nn.Module, getattr(encoder, "text_model", encoder).final_layer_norm)
