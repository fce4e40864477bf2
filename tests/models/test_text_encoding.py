"""Captions to ids and hidden states, against sd-scripts' rule of chunks and diffusers' pipelines."""

from __future__ import annotations

import string

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lora_trainer.models.adapters.network import adapter_layers, freeze_unreachable
from lora_trainer.models.adapters.targets import lora_targets
from lora_trainer.models.text_encoding import (
    encode_prompts,
    reachable_layers,
    text_beyond,
    token_count,
    tokenize,
    tokenize_weighted,
)
from lora_trainer.models.tokenizers import clip_tokenizer
from tests.models.standard_lora import add_lora

SIGNS = "!" + string.ascii_lowercase + ",<|>_"
VOCABULARY = [*SIGNS, *(sign + "</w>" for sign in SIGNS), "<|startoftext|>", "<|endoftext|>"]
BOS, EOS = len(VOCABULARY) - 2, len(VOCABULARY) - 1
PADS = {"<|endoftext|>": EOS, "!": 0}


def letters(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """A tokenizer without merges: every letter is a word."""
    ids = {word: number for number, word in enumerate(VOCABULARY)}
    return CLIPTokenizer(vocab=ids, merges=[], pad_token=pad, model_max_length=77)


def a_text(words: int) -> str:
    return " ".join("abcdefghij"[number % 10] for number in range(words))


def text_encoder(model: type = CLIPTextModel, seed: int = 0, width: int = 16) -> CLIPTextModel:
    torch.manual_seed(seed)
    ids = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS, "vocab_size": len(VOCABULARY)}
    sizes = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    return model(CLIPTextConfig(**ids, **sizes, projection_dim=16)).eval()


def cut_long_row(ids: list[int], words: int, pad: int) -> list[list[int]]:
    """The rule of sd-scripts as stated: pad to one long row, cut, then mend the edges of the chunks."""
    row = [BOS, *ids[:words], EOS]
    row += [pad] * (words + 2 - len(row))
    chunks = [[row[0], *row[start : start + 75], row[-1]] for start in range(1, words + 1, 75)]
    for chunk in chunks:
        if pad != EOS and chunk[-2] not in (EOS, pad):
            chunk[-1] = EOS
        if pad != EOS and chunk[1] == pad:
            chunk[1] = EOS
    return chunks


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("max_token_length", [75, 150, 225])
@pytest.mark.parametrize("words", [0, 1, 74, 75, 76, 149, 150, 151, 224, 225, 226, 400])
def test_chunks_are_those_of_sd_scripts(words: int, max_token_length: int, pad: str) -> None:
    ids = [VOCABULARY.index(letter + "</w>") for letter in a_text(words).split()]

    chunks = tokenize(letters(pad), a_text(words), max_token_length)

    assert chunks.dtype == torch.int64
    assert chunks.tolist() == cut_long_row(ids, max_token_length, PADS[pad])


def test_a_short_text_is_padded_to_one_chunk() -> None:
    a = VOCABULARY.index("a</w>")
    assert tokenize(letters("!"), "A").tolist() == [[BOS, a, EOS] + [0] * 74]
    assert tokenize(letters(), "A").tolist() == [[BOS, a, EOS] + [EOS] * 74]


def test_an_exclamation_mark_is_a_word_and_not_the_padding() -> None:
    w, o, mark = VOCABULARY.index("w"), VOCABULARY.index("o</w>"), VOCABULARY.index("!</w>")
    for pad in PADS:
        assert tokenize(letters(pad), "wo!")[0, :5].tolist() == [BOS, w, o, mark, EOS]


def test_the_name_of_a_special_token_in_a_caption_is_plain_text() -> None:
    assert tokenize(letters(), "a <|endoftext|> b")[0, :4].tolist().count(EOS) == 0


def test_token_count_tells_what_tokenize_drops() -> None:
    assert token_count(letters(), "") == 0
    assert token_count(letters(), a_text(400)) == 400
    assert token_count(letters(), "ab, c") == 4


def test_the_words_of_the_published_vocabulary() -> None:
    cat = [320, 1125, 539, 320, 2368]  # a photo of a cat
    for pad, filler in (("<|endoftext|>", 49407), ("!", 0)):
        ids = tokenize(clip_tokenizer(pad=pad), "a photo of a cat!").tolist()[0]
        assert ids == [49406, *cat, 256, 49407] + [filler] * 69


def batch(*texts: str, max_token_length: int = 75, pad: str = "<|endoftext|>") -> Tensor:
    return torch.stack([tokenize(letters(pad), text, max_token_length) for text in texts])


def sd_pipeline(encoder: CLIPTextModel) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=None,
        text_encoder=encoder,
        tokenizer=letters(),
        unet=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.mark.parametrize("kind", ["sd15", "sd21"])
def test_the_last_layer_is_what_diffusers_uses(kind: str) -> None:
    encoder = text_encoder()
    expected, _ = sd_pipeline(encoder).encode_prompt(["a b", "c"], "cpu", 1, do_classifier_free_guidance=False)

    for clip_skip in (0, 1):
        condition = encode_prompts(kind, [encoder], [batch("a b", "c")], clip_skip)
        torch.testing.assert_close(condition.hidden, expected, rtol=0, atol=1e-6)
        assert condition.pooled is None


@pytest.mark.parametrize("clip_skip", [2, 3])
def test_a_skipped_layer_is_what_diffusers_uses(clip_skip: int) -> None:
    # diffusers counts from 0 here, and finds the final norm only in the encoder that has the level text_model
    encoder = text_encoder(CLIPTextModelWithProjection)
    expected, _ = sd_pipeline(encoder).encode_prompt(
        ["a b", "c"], "cpu", 1, do_classifier_free_guidance=False, clip_skip=clip_skip - 1
    )

    hidden = encode_prompts("sd15", [encoder], [batch("a b", "c")], clip_skip).hidden

    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-6)
    flattened = text_encoder()
    flattened.load_state_dict(encoder.text_model.state_dict())
    torch.testing.assert_close(encode_prompts("sd15", [flattened], [batch("a b", "c")], clip_skip).hidden, expected)


def sdxl_pair() -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    return text_encoder(), text_encoder(CLIPTextModelWithProjection, seed=1, width=24)


def test_sdxl_is_what_diffusers_uses() -> None:
    one, two = sdxl_pair()
    pipeline = StableDiffusionXLPipeline(
        vae=None,
        text_encoder=one,
        text_encoder_2=two,
        tokenizer=letters(),
        tokenizer_2=letters("!"),
        unet=None,
        scheduler=None,
        add_watermarker=False,
    )
    hidden, _, pooled, _ = pipeline.encode_prompt(["a b", "c"], device="cpu", do_classifier_free_guidance=False)

    for clip_skip in (0, 1, 2, 3):  # SDXL has no choice
        condition = encode_prompts("sdxl", [one, two], [batch("a b", "c"), batch("a b", "c", pad="!")], clip_skip)
        torch.testing.assert_close(condition.hidden, hidden, rtol=0, atol=1e-6)
        torch.testing.assert_close(condition.pooled, pooled, rtol=0, atol=1e-6)


def test_chunks_are_joined_without_their_inner_edges() -> None:
    encoder = text_encoder()
    ids = batch(a_text(200), "a", max_token_length=225)
    hidden = encode_prompts("sd15", [encoder], [ids]).hidden

    assert hidden.shape == (2, 227, 16)
    for row in range(2):
        one, two, three = (encoder(ids[row, chunk : chunk + 1]).last_hidden_state[0] for chunk in range(3))
        torch.testing.assert_close(hidden[row], torch.cat([one[:76], two[1:76], three[1:]]))


def test_sdxl_pools_the_first_end_of_the_first_chunk() -> None:
    one, two = sdxl_pair()
    ids = batch("a b c d", max_token_length=150)
    pooled = encode_prompts("sdxl", [one, two], [ids, ids]).pooled

    last = two(ids[0, :1]).last_hidden_state[0, 5]  # BOS, four words, EOS
    torch.testing.assert_close(pooled, two.text_projection(last)[None])


@pytest.mark.parametrize(
    ("kind", "clip_skip", "reachable"),
    [("sd15", 1, [3]), ("sd15", 2, [2]), ("sd21", 3, [1]), ("sd15", 0, [3]), ("sdxl", 2, [2, 3]), ("sdxl", 1, [2, 3])],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_exactly_the_reachable_layers_get_gradients(
    kind: str, clip_skip: int, reachable: list[int], checkpointing: bool
) -> None:
    encoders = [text_encoder()] if kind != "sdxl" else list(sdxl_pair())
    for index, encoder in enumerate(encoders):
        layers = reachable_layers(kind, index, encoder.config.num_hidden_layers, clip_skip)
        assert layers == range(reachable[index])
        add_lora(encoder, {path: path for path in lora_targets(encoder)}, rank=2, alpha=1, seed=index)
        freeze_unreachable(encoder, layers)
        encoder.train()
        if checkpointing:
            encoder.gradient_checkpointing_enable({"use_reentrant": False})  # reentrant needs an input with a gradient
    ids = [batch("a b", pad=pad) for pad in PADS][: len(encoders)]

    with torch.autocast("cpu", torch.bfloat16):
        condition = encode_prompts(kind, encoders, ids, clip_skip)
        # the square of one feature, because the sum over a normed vector is constant
        loss = condition.hidden[..., ::3].float().square().mean()
        if condition.pooled is not None:
            loss = loss + condition.pooled[:, ::3].float().square().mean()
    loss.backward()

    for encoder, count in zip(encoders, reachable, strict=True):
        for path, layer in adapter_layers(encoder).items():
            inside = any(f"encoder.layers.{number}." in path for number in range(count))
            for parameter in (layer.lora_A["default"].weight, layer.lora_B["default"].weight):
                assert parameter.requires_grad == inside, path
                assert (parameter.grad is not None) == inside, path
            if inside:
                assert layer.lora_B["default"].weight.grad.abs().max() > 0, path


def test_weights_stand_beside_their_words() -> None:
    ids, weights = tokenize_weighted(letters(), "a (b c:1.5) [d]", 75)
    assert torch.equal(ids, tokenize(letters(), "a b c d"))
    expected = torch.ones(1, 77)
    expected[0, 2:5] = torch.tensor([1.5, 1.5, 1 / 1.1])
    torch.testing.assert_close(weights, expected)
    assert token_count(letters(), "a (b c:1.5) [d]", weighted=True) == 4


def test_weights_of_a_long_text_are_cut_with_it() -> None:
    text = f"{a_text(74)} (a b:2) {a_text(80)} (c d:3)"
    ids, weights = tokenize_weighted(letters(), text, 150)
    assert torch.equal(ids, tokenize(letters(), f"{a_text(74)} a b {a_text(80)} c d", 150))
    assert weights[0, 75:].tolist() == [2.0, 1.0]  # the last word, the end
    assert weights[1, :3].tolist() == [1.0, 2.0, 1.0]
    assert weights.sum() == 2 * 77 + 2


def test_a_text_without_brackets_weighs_nothing() -> None:
    for text in ("", "a b", a_text(200)):
        ids, weights = tokenize_weighted(letters("!"), text, 150)
        assert torch.equal(ids, tokenize(letters("!"), text, 150))
        assert torch.equal(weights, torch.ones(2, 77))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("max_token_length", [75, 150])
def test_weights_multiply_what_comes_out(kind: str, max_token_length: int) -> None:
    encoders = [text_encoder()] if kind == "sd15" else list(sdxl_pair())
    pads = ["<|endoftext|>", "!"][: len(encoders)]
    texts = (f"(a:1.5) {a_text(75)} (b:-2)", "c")
    pairs = [[tokenize_weighted(letters(pad), text, max_token_length) for text in texts] for pad in pads]
    ids = [torch.stack([row for row, _ in found]) for found in pairs]
    weights = [torch.stack([row for _, row in found]) for found in pairs]

    plain = encode_prompts(kind, encoders, ids)
    weighted = encode_prompts(kind, encoders, ids, 1, weights)

    factors = torch.ones(2, max_token_length + 2)
    factors[0, 1] = 1.5
    if max_token_length > 75:
        factors[0, 77] = -2
    torch.testing.assert_close(weighted.hidden, plain.hidden * factors[..., None])
    if kind == "sdxl":
        assert torch.equal(weighted.pooled, plain.pooled)


def test_weights_keep_the_number_format() -> None:
    encoder = text_encoder().to(torch.bfloat16)
    ids, weights = tokenize_weighted(letters(), "(a:1.5)")
    assert encode_prompts("sd15", [encoder], [ids[None]], 1, [weights[None]]).hidden.dtype == torch.bfloat16


def test_what_the_limit_drops_is_told_as_it_was_written() -> None:
    tokenizer = clip_tokenizer()
    assert text_beyond(tokenizer, "A Cat, a RED wall", 3) == "a RED wall"
    assert text_beyond(tokenizer, "A Cat, a RED wall", 6) == ""
    assert text_beyond(tokenizer, "A (Cat:1.3) on [a wall] today", 3, weighted=True) == "a wall today"
