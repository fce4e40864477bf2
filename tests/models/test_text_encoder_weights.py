"""Which weights of the text encoders are trained."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.models.base_configs import Kind
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.text_encoder_weights import TextFreezing, trained_text_weights
from lora_trainer.models.text_encoding import encode_prompts, tokenize
from lora_trainer.models.tiny_models import tiny_base

NOTHING_FROZEN = TextFreezing()


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def base(request: pytest.FixtureRequest) -> BaseModel:
    return tiny_base(request.param)


def with_gradients(base: BaseModel, clip_skip: int) -> list[set[str]]:
    """The weights of each encoder that what the UNet reads depends on."""
    for encoder in base.text_encoders:
        encoder.requires_grad_(True).zero_grad(set_to_none=True)
    ids = [torch.stack([tokenize(tokenizer, "a cat")]) for tokenizer in base.tokenizers]
    condition = encode_prompts(base.kind, base.text_encoders, ids, clip_skip)
    total = condition.hidden.square().sum()
    if condition.pooled is not None:
        total = total + condition.pooled.square().sum()
    total.backward()
    return [
        {name for name, weight in encoder.named_parameters() if weight.grad is not None}
        for encoder in base.text_encoders
    ]


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_what_is_trained_is_what_the_unet_reads(base: BaseModel, clip_skip: int) -> None:
    for index, expected in enumerate(with_gradients(base, clip_skip)):
        found = trained_text_weights(base.text_encoders[index], base.kind, index, clip_skip, NOTHING_FROZEN)
        assert set(found) == expected


def names(kind: Kind, freezing: TextFreezing) -> set[str]:
    return set(trained_text_weights(tiny_base(kind).text_encoders[0], kind, 0, 1, freezing))


def test_parts_can_be_left_as_they_are() -> None:
    every = names("sd15", NOTHING_FROZEN)
    without = every - names("sd15", TextFreezing(embeddings=True))
    assert {name.split(".")[-2] for name in without} == {"token_embedding", "position_embedding"}
    without = every - names("sd15", TextFreezing(final_layer_norm=True))
    assert {name.split(".")[-2] for name in without} == {"final_layer_norm"}
    layers = sorted({name.split("layers.")[1].split(".")[0] for name in every if "layers." in name}, key=int)
    last = names("sd15", TextFreezing(last_layers=2))
    assert {name.split("layers.")[1].split(".")[0] for name in last if "layers." in name} == set(layers[-2:])
    assert not [name for name in last if "embedding" in name]
    assert [name for name in last if "final_layer_norm" in name]
    assert names("sd15", TextFreezing(last_layers=99)) == every - {name for name in every if "embedding" in name}
