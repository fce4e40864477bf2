"""The rates of UNet and text encoder that a preset asks for."""

from __future__ import annotations

from typing import Any

import pytest

from lora_trainer.config.finetune import FinetunePreset
from lora_trainer.trainers.finetune.schedule import finetune_rates


def preset(**keys: Any) -> FinetunePreset:
    return FinetunePreset(resume_ckpt="base", data_root="input", **keys)


def test_the_text_encoder_follows_the_unet_unless_it_says_otherwise() -> None:
    rates = finetune_rates(preset(max_epochs=10, lr=2e-6, lr_scheduler="cosine"), 10, 2)
    assert rates.unet is not None
    assert rates.unet == rates.text_encoder
    assert (rates.unet.name, rates.unet.decay_steps, rates.unet.warmup_steps) == ("cosine", 150, 3)
    own = preset(
        max_epochs=10, text_encoder_lr=1e-7, text_encoder_lr_scheduler="linear", text_encoder_lr_decay_steps=90,
        text_encoder_lr_warmup_steps=0,
    )  # fmt: skip
    rates = finetune_rates(own, 10, 2)
    assert rates.unet is not None and rates.text_encoder is not None
    assert (rates.unet.name, rates.unet.rate) == ("constant", 1e-6)
    assert (rates.text_encoder.name, rates.text_encoder.decay_steps, rates.text_encoder.warmup_steps) == (
        "linear",
        90,
        0,
    )
    assert rates.text_encoder.at(45) == pytest.approx(0.5e-7)
    assert rates.warnings(100) == [
        "text encoder: the rate comes down to 0 in step 90 of 100 and nothing is learnt after it; "
        "set text_encoder_lr_decay_steps to 100 or more"
    ]


def test_what_is_not_trained_has_no_rate_and_scaling_is_in_it() -> None:
    rates = finetune_rates(preset(disable_textenc_training=True, lr=1e-6, scale_lr=True), 10, 8)
    assert rates.text_encoder is None
    assert rates.unet is not None
    assert rates.unet.at(5) == pytest.approx(1e-6 * 8**0.55)
