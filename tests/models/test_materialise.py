"""Models are built from exactly the tensors they need; differences are refused with the names."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from lora_trainer.errors import Refusal
from lora_trainer.models.architectures import build_text_encoder, build_unet
from lora_trainer.models.materialise import materialise
from lora_trainer.models.tiny_models import tiny_base, tiny_configs


@pytest.fixture(scope="module")
def unet_state() -> dict[str, Tensor]:
    return dict(tiny_base("sd15").unet.state_dict())


build = partial(build_unet, tiny_configs("sd15")["unet"])


def _problems(state: dict[str, Tensor]) -> tuple[str, ...]:
    with pytest.raises(Refusal) as refusal:
        materialise(build, state, torch.float32, "a.safetensors (unet)")
    return refusal.value.problems


def test_the_model_is_frozen_cast_and_complete(unet_state: dict[str, Tensor]) -> None:
    unet = materialise(build, unet_state, torch.bfloat16, "test")
    assert not unet.training
    assert not any(tensor.requires_grad for tensor in unet.parameters())
    assert {(tensor.dtype, tensor.device.type) for tensor in unet.parameters()} == {(torch.bfloat16, "cpu")}


def test_buffers_that_no_file_holds_are_real() -> None:
    config = tiny_configs("sd15")["text_encoder"]
    state = tiny_base("sd15").text_encoders[0].state_dict()
    encoder = materialise(partial(build_text_encoder, config, projection=False), state, torch.float32, "test")
    positions = dict(encoder.named_buffers())["embeddings.position_ids"]
    assert torch.equal(positions, torch.arange(77)[None])


def test_linear_layers_and_1x1_convolutions_are_the_same_numbers(unet_state: dict[str, Tensor]) -> None:
    name = "mid_block.attentions.0.proj_in.weight"
    flat = {**unet_state, name: unet_state[name].flatten(1)}
    assert flat[name].ndim == 2
    assert torch.equal(materialise(build, flat, torch.float16, "test").state_dict()[name], unet_state[name])


def test_a_part_of_a_larger_tensor_becomes_its_own() -> None:
    whole = torch.arange(12.0).reshape(6, 2)
    layer = materialise(lambda: torch.nn.Linear(2, 3, bias=False), {"weight": whole[:3]}, torch.float32, "test")
    whole.zero_()
    assert layer.weight.flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_missing_and_unknown_tensors(unet_state: dict[str, Tensor]) -> None:
    less = {name: tensor for name, tensor in unet_state.items() if not name.startswith(("conv_in.", "conv_out."))}
    assert _problems(less) == (
        "a.safetensors (unet): conv_in.bias, conv_in.weight, conv_out.bias and 1 more are missing; "
        "the checkpoint is incomplete or of another architecture",
    )
    more = {**unet_state, "label_emb.0.0.weight": torch.zeros(1)}
    assert _problems(more) == (
        "a.safetensors (unet): label_emb.0.0.weight is unknown; the checkpoint is of another architecture",
    )


def test_other_shapes(unet_state: dict[str, Tensor]) -> None:
    wrong = {**unet_state, "conv_in.weight": torch.zeros(8, 5, 3, 3)}
    assert _problems(wrong) == (
        "a.safetensors (unet): conv_in.weight has the shape (8, 5, 3, 3) instead of (8, 4, 3, 3); "
        "give another base model",
    )
