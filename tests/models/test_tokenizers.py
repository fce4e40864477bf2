"""The packaged vocabulary gives CLIP's own ids, and small vocabularies its beginning."""

from __future__ import annotations

import json
import pickle

import pytest

from lora_trainer.models.tokenizers import PAD_OPEN_CLIP, PAD_OPENAI, clip_tokenizer

CAT = [49406, 320, 1125, 539, 320, 2368, 49407]  # as CLIP's own tokenizer splits "a photo of a cat"


def test_ids_are_clips() -> None:
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == CAT
    assert tokenizer("  A Photo\nof a  CAT ").input_ids == CAT
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (49406, 49407, 49407)
    assert tokenizer.model_max_length == 77


def test_any_text_has_ids() -> None:
    tokenizer = clip_tokenizer(514)
    ids = tokenizer("café 猫 🙂").input_ids
    # c a f, two bytes of é (the last ends the word); three bytes; four bytes; between BEGIN and END
    assert len(ids) == 2 + 3 + 2 + 3 + 4
    assert (ids[0], ids[-1], max(ids)) == (512, 513, 513)


def test_padding_is_the_only_difference_of_the_second_tokenizer() -> None:
    openai, open_clip = clip_tokenizer(pad=PAD_OPENAI), clip_tokenizer(pad=PAD_OPEN_CLIP)
    assert openai("cat", padding="max_length", max_length=5).input_ids == [49406, 2368, 49407, 49407, 49407]
    assert open_clip("cat", padding="max_length", max_length=5).input_ids == [49406, 2368, 49407, 0, 0]


def test_a_small_vocabulary_has_the_first_merges() -> None:
    small, whole = clip_tokenizer(2048), clip_tokenizer()
    assert len(small) == 2048
    assert (small.bos_token_id, small.eos_token_id) == (2046, 2047)
    vocabulary = whole.get_vocab()
    assert all(vocabulary[word] == token for word, token in small.get_vocab().items() if token < 2046)
    assert small("photo of").input_ids == [2046, 1125, 539, 2047]


@pytest.mark.parametrize("vocab_size", [513, 49409])
def test_an_impossible_size(vocab_size: int) -> None:
    with pytest.raises(ValueError, match=r"must be 514\.\.49408"):
        clip_tokenizer(vocab_size)


def test_a_worker_gets_the_same_tokenizer() -> None:
    tokenizer = clip_tokenizer(2048, PAD_OPEN_CLIP)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy("a café!").input_ids == tokenizer("a café!").input_ids
    assert copy.pad_token_id == 0
    assert json.loads(copy.backend_tokenizer.to_str()) == json.loads(tokenizer.backend_tokenizer.to_str())
