"""What captions are in the step, and that each caption key changes what is trained."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.reader import load_preset
from lora_trainer.data.captions import CaptionSettings
from lora_trainer.data.latent_cache import ALONE
from lora_trainer.models.base_model import load_base_model
from lora_trainer.models.detect import detect
from lora_trainer.models.safetensors_header import read_header
from lora_trainer.models.tiny_models import tiny_base
from lora_trainer.models.tokenizers import clip_tokenizer
from lora_trainer.trainers.diffusion.model import DiffusionModel
from lora_trainer.trainers.diffusion.sample_prompts import SamplePrompt
from lora_trainer.trainers.diffusion.sampling import Drawing, Sampler
from lora_trainer.trainers.diffusion.text import CaptionTokens, say_about_captions, with_cache
from lora_trainer.trainers.lora.data import caption_settings

Train = Callable[..., int]
WritePreset = Callable[..., Path]
Rows = Callable[[], list[dict[str, Any]]]

CAPTIONS = ("a (cat:1.4), [tree]", "")


@pytest.fixture(scope="module")
def tokens() -> CaptionTokens:
    return CaptionTokens((clip_tokenizer(), clip_tokenizer(pad="!")), 150)


def test_weights_travel_beside_the_ids(tokens: CaptionTokens) -> None:
    weighted = CaptionTokens(tokens.tokenizers, 150, weighted=True).batch(CAPTIONS)
    plain = tokens.batch(["a cat, tree", ""])
    assert plain.keys() == {"token_ids"}
    assert weighted.keys() == {"token_ids", "token_weights"}
    for index in range(2):
        assert torch.equal(weighted["token_ids"][index], plain["token_ids"][index])
        assert weighted["token_weights"][index].shape == (2, 2, 77)
        assert weighted["token_weights"][index][0, 0, :6].tolist() == pytest.approx([1, 1, 1.4, 1, 1 / 1.1, 1])
        assert torch.equal(weighted["token_weights"][index][1], torch.ones(2, 77))


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_cache_gives_what_the_encoders_give(
    tiny_path: Callable[..., Path], tmp_path: Path, weighted: bool, on_disk: bool
) -> None:
    base = load_base_model(detect(tiny_path("sdxl")))
    fresh = CaptionTokens(base.tokenizers, 150, weighted)
    cached = with_cache(fresh, CAPTIONS, base, ALONE, "weights", tmp_path if on_disk else None)
    model = DiffusionModel("sdxl", base.unet, base.text_encoders, clip_skip=1)
    order = [CAPTIONS[1], CAPTIONS[0], CAPTIONS[0]]
    with torch.no_grad():
        expected, found = model.condition(fresh.batch(order)), model.condition(cached.batch(order))
    torch.testing.assert_close(found.hidden, expected.hidden, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.pooled, expected.pooled, rtol=0, atol=1e-5)


def test_what_is_said_about_captions(tokens: CaptionTokens, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    captions = {"1_a/1.png": ("saber (fate), sword",), "1_a/2.png": ("cat", "(dog:1.2)"), "1_a/3.png": ("cat " * 151,)}
    say_about_captions(captions, tokens)
    assert caplog.messages == ["1 of 3 captions are longer than max_token_length 150; what is beyond it is not trained"]
    caplog.clear()
    say_about_captions(
        {**captions, **{f"1_a/{n}.png": ("[x]",) for n in "4567"}}, CaptionTokens(tokens.tokenizers, 225, True)
    )
    assert caplog.messages == [
        "5 of 7 captions have brackets without a number, which weighted_captions reads as a weight of 1.1 or 1 / 1.1: "
        '1_a/1.png "saber (fate), sword", 1_a/4.png "[x]", 1_a/5.png "[x]", ...; write \\( and \\) where they belong '
        "to a name"
    ]


def test_previews_weigh_words_only_where_captions_do() -> None:
    base = tiny_base("sd15")
    models = [model.float() for model in (base.unet, base.vae, *base.text_encoders)]
    sampler = Sampler("euler", v_prediction=False, zero_terminal_snr=False)

    def drawn(text: str, weighted: bool) -> bytes:
        drawing = Drawing("sd15", models[0], models[1], models[2:], base.tokenizers, 1, sampler, weighted)
        return drawing.draw(SamplePrompt(text, width_px=64, height_px=64, seed=3, steps=1)).tobytes()

    plain = drawn("a cat, tree", False)
    assert drawn("a cat, tree", True) == plain
    assert drawn("a (cat:1.0), tree", True) == plain
    assert len({plain, drawn("a (cat:9), tree", True), drawn("a (cat:9), tree", False)}) == 3


QUICK = {"epoch": 1, "max_train_steps": 2, "unet_lr": 0.01}


def trained(train: Train, write_preset: WritePreset, rows: Rows, **keys: Any) -> list[float]:
    assert train(write_preset(**QUICK, **keys), "--restart") == 0
    return [row["loss"] for row in rows()]


def test_every_caption_key_reaches_the_captions(write_preset: WritePreset) -> None:
    values = {
        "shuffle_caption": True,
        "keep_tokens": 2,
        "keep_tokens_separator": "|||",
        "caption_separator": ".",
        "secondary_separator": ";;;",
        "enable_wildcard": True,
        "caption_prefix": "drawing of",
        "caption_suffix": "at night",
        "caption_dropout_rate": 0.25,
        "caption_dropout_every_n_epochs": 3,
        "caption_tag_dropout_rate": 0.5,
        "token_warmup_min": 2,
        "token_warmup_step": 0.5,
    }
    preset = load_preset(write_preset(**values)).preset
    assert isinstance(preset, LoraPreset)
    assert caption_settings(preset) == CaptionSettings(**values)  # type: ignore[arg-type]


def test_captions_as_the_keys_say_change_what_is_trained(
    write_preset: WritePreset, train: Train, rows: Rows, photos: Path, out: Path
) -> None:
    for file in (photos / "2_photo").glob("*.txt"):
        words = file.read_text(encoding="utf-8").strip()
        file.write_text(f"(photo:1.5) ||| {words}, {{red|blue}}, one;;;two\nanother line\n", encoding="utf-8")
    plain = trained(train, write_preset, rows)
    metadata = read_header(out / "tiny.safetensors").metadata
    keys = {"shuffle_caption": True, "keep_tokens_separator": "|||", "caption_prefix": "x,", "token_warmup_step": 0.5}
    changed = trained(train, write_preset, rows, **keys)
    weighted = trained(train, write_preset, rows, **keys, weighted_captions=True)
    wild = trained(train, write_preset, rows, **keys, weighted_captions=True, enable_wildcard=True)
    assert len({tuple(losses) for losses in (plain, changed, weighted, wild)}) == 4
    tags = json.loads(metadata["ss_tag_frequency"])["2_photo"]
    assert tags["{red|blue}"] == tags["one;;;two"] == 4
    assert not [tag for tag in tags if tag.startswith("x")]
    tags = json.loads(read_header(out / "tiny.safetensors").metadata["ss_tag_frequency"])["2_photo"]
    assert tags["another line"] == 4


def test_encoded_captions_on_disk_train_alike_and_serve_again(
    write_preset: WritePreset, train: Train, rows: Rows, photos: Path
) -> None:
    keys = {"text_encoder_lr": 0, "caption_prefix": "x,", "weighted_captions": True, "caption_dropout_rate": 0.5}
    plain = trained(train, write_preset, rows, **keys)
    keys |= {"sdxl_cache_text_encoder_outputs": True, "cache_text_encoder_outputs_to_disk": True}
    on_disk = trained(train, write_preset, rows, **keys)
    assert on_disk == pytest.approx(plain, rel=1e-4)
    files = sorted((photos / ".captions").iterdir())
    assert len(files) == 5  # four captions and the empty one
    before = [file.stat().st_mtime_ns for file in files]
    good = files[0].read_bytes()
    files[0].write_bytes(good[:-9])
    assert trained(train, write_preset, rows, **keys) == on_disk
    assert files[0].read_bytes() == good
    assert [file.stat().st_mtime_ns for file in files[1:]] == before[1:]
