"""LoRA layers in small real models: what they compute, how they begin, and what is trained."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.models.adapters.lora import LoraWeights
from lora_trainer.models.adapters.network import adapter_disabled, adapter_layers, freeze_unreachable, load_adapter
from lora_trainer.models.adapters.targets import lora_targets
from tests.models.standard_lora import add_lora, load_lora_weights, lora_weights


def tiny_unet(linear: bool = True) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=12,
        norm_num_groups=4,
        use_linear_projection=linear,
    )


def tiny_text_encoder() -> CLIPTextModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPTextModel(CLIPTextConfig(vocab_size=20, eos_token_id=19, **sizes))


def names_of(model: nn.Module) -> dict[str, str]:
    return {path: f"key of {path}" for path in lora_targets(model)}


def unet_inputs() -> tuple[torch.Tensor, int, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 4, 8, 8, generator=generator), 500, torch.randn(1, 3, 12, generator=generator)


def random_weights(model: nn.Module, alpha: float) -> dict[str, LoraWeights]:
    generator = torch.Generator().manual_seed(2)
    return {
        path: LoraWeights(
            torch.randn(layer.down.shape, generator=generator), torch.randn(layer.up.shape, generator=generator), alpha
        )
        for path, layer in lora_weights(model).items()
    }


BLOCK = "down_blocks.0.attentions.0"
TRANSFORMER = f"{BLOCK}.transformer_blocks.0"


@pytest.mark.parametrize("linear", [True, False])
def test_targets_of_a_unet_are_the_linear_layers_and_small_convolutions_of_its_transformers(linear: bool) -> None:
    targets = [path for path in lora_targets(tiny_unet(linear)) if path.startswith("down_blocks")]

    assert sorted(targets) == sorted(
        [f"{BLOCK}.proj_in", f"{BLOCK}.proj_out"]
        + [f"{TRANSFORMER}.attn{n}.to_{x}" for n in (1, 2) for x in ("q", "k", "v", "out.0")]
        + [f"{TRANSFORMER}.ff.net.0.proj", f"{TRANSFORMER}.ff.net.2"]
    )


def test_targets_of_a_text_encoder_are_its_attention_and_mlp() -> None:
    assert sorted(lora_targets(tiny_text_encoder())) == sorted(
        f"encoder.layers.{n}.{layer}"
        for n in (0, 1)
        for layer in ("mlp.fc1", "mlp.fc2", *(f"self_attn.{x}_proj" for x in ("q", "k", "v", "out")))
    )


@pytest.mark.parametrize("linear", [True, False])
def test_a_layer_adds_up_of_down_times_alpha_by_rank(linear: bool) -> None:
    unet = tiny_unet(linear)
    add_lora(unet, names_of(unet), rank=4, alpha=3, seed=0)
    load_lora_weights(unet, random_weights(unet, alpha=3))
    layer, weights = adapter_layers(unet)[f"{BLOCK}.proj_in"], lora_weights(unet)[f"{BLOCK}.proj_in"]

    x = torch.randn((2, 8) if linear else (2, 8, 3, 3))
    delta = (3 / 4) * weights.up.flatten(1) @ weights.down.flatten(1)
    equation = "oi,bi->bo" if linear else "oi,bihw->bohw"
    torch.testing.assert_close(layer(x) - layer.get_base_layer()(x), torch.einsum(equation, delta, x))


def test_a_new_lora_changes_nothing() -> None:
    unet = tiny_unet()
    before = unet(*unet_inputs()).sample
    add_lora(unet, names_of(unet), rank=4, alpha=4, seed=0)

    assert torch.equal(unet(*unet_inputs()).sample, before)
    assert all(not layer.up.any() for layer in lora_weights(unet).values())
    assert adapter_layers(unet).keys() == names_of(tiny_unet()).keys()


def test_the_beginning_depends_on_the_seed_and_the_name_alone() -> None:
    whole, reversed_order = tiny_unet(), tiny_unet()
    names = names_of(whole)
    add_lora(whole, names, rank=4, alpha=4, seed=7)
    add_lora(reversed_order, dict(reversed(names.items())), rank=4, alpha=4, seed=7)
    one = {TRANSFORMER + ".attn1.to_q": names[TRANSFORMER + ".attn1.to_q"]}
    alone = tiny_unet().to(torch.bfloat16)
    add_lora(alone, one, rank=4, alpha=4, seed=7)
    other_seed = tiny_unet()
    add_lora(other_seed, one, rank=4, alpha=4, seed=8)

    first = {path: weights.down for path, weights in lora_weights(whole).items()}
    assert all(torch.equal(weights.down, first[path]) for path, weights in lora_weights(reversed_order).items())
    for path, name in one.items():
        assert torch.equal(lora_weights(alone)[path].down, first[path])
        assert not torch.equal(lora_weights(other_seed)[path].down, first[path])
        expected = nn.init.kaiming_uniform_(torch.empty(4, 8), 5**0.5, generator=torch_generator(7, "lora_init", name))
        assert torch.equal(first[path], expected)


def test_adding_draws_nothing_from_the_global_generator() -> None:
    unet = tiny_unet()
    before = torch.get_rng_state()
    add_lora(unet, names_of(unet), rank=4, alpha=4, seed=7)

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_lora_of_a_half_precision_base_is_float32(dtype: torch.dtype) -> None:
    encoder = tiny_text_encoder().to(dtype)
    add_lora(encoder, names_of(encoder), rank=4, alpha=4, seed=0)

    kinds = {
        (name.endswith(("lora_A.default.weight", "lora_B.default.weight")), p.dtype, p.requires_grad)
        for name, p in encoder.named_parameters()
    }
    assert kinds == {(True, torch.float32, True), (False, dtype, False)}


def test_the_rank_may_exceed_the_layers_size() -> None:
    encoder = tiny_text_encoder()
    add_lora(encoder, names_of(encoder), rank=32, alpha=1, seed=0)

    weights = lora_weights(encoder)["encoder.layers.0.mlp.fc1"]
    assert (weights.down.shape, weights.up.shape, weights.rank, weights.alpha) == ((32, 8), (16, 32), 32, 1.0)


def test_a_path_without_a_layer_is_an_error() -> None:
    encoder = tiny_text_encoder()
    with pytest.raises(ValueError, match=r"no layer at \['encoder.layers.9.mlp.fc1'\]"):
        add_lora(encoder, {**names_of(encoder), "encoder.layers.9.mlp.fc1": "x"}, rank=1, alpha=1, seed=0)


def test_weights_and_their_alpha_are_loaded_and_read_back() -> None:
    unet = tiny_unet()
    add_lora(unet, names_of(unet), rank=4, alpha=4, seed=0)
    weights = random_weights(unet, alpha=0.5)
    left_out = weights.popitem()[0]

    assert load_lora_weights(unet, weights) == (left_out,)
    now = lora_weights(unet)
    for path, expected in weights.items():
        assert torch.equal(now[path].down, expected.down)
        assert torch.equal(now[path].up, expected.up)
        assert now[path].alpha == 0.5
        assert adapter_layers(unet)[path].scaling["default"] == 0.125
    assert now[left_out].alpha == 4.0


def test_weights_of_linear_layers_fit_convolutions() -> None:
    linear, conv = tiny_unet(linear=True), tiny_unet(linear=False)
    for unet in (linear, conv):
        add_lora(unet, names_of(unet), rank=4, alpha=4, seed=0)
    weights = random_weights(linear, alpha=4)

    assert load_lora_weights(conv, weights) == ()
    there = lora_weights(conv)[f"{BLOCK}.proj_in"]
    assert there.down.shape == (4, 8, 1, 1)
    assert torch.equal(there.down.flatten(1), weights[f"{BLOCK}.proj_in"].down)


def test_weights_that_do_not_fit_are_refused_and_nothing_is_changed() -> None:
    encoder = tiny_text_encoder()
    add_lora(encoder, names_of(encoder), rank=4, alpha=4, seed=0)
    before = {path: weights.down.clone() for path, weights in lora_weights(encoder).items()}
    good = random_weights(encoder, alpha=4)
    fc1, fc2 = "encoder.layers.0.mlp.fc1", "encoder.layers.0.mlp.fc2"

    with pytest.raises(Refusal, match=r"fc1: the LoRA file has rank 2, this training 4; set network_dim to 2, or dim"):
        load_lora_weights(encoder, {**good, fc1: LoraWeights(torch.ones(2, 8), torch.ones(16, 2), 1)})
    with pytest.raises(Refusal, match=r"from 16 to 8 features, this base model's is from 8 to 16.*; 1 more layers"):
        load_lora_weights(encoder, {**good, fc1: good[fc2], fc2: good[fc1]})
    with pytest.raises(Refusal, match="nowhere: the LoRA file has weights for this layer, but here it has no LoRA"):
        load_lora_weights(encoder, {"nowhere": good[fc1]})
    assert all(torch.equal(weights.down, before[path]) for path, weights in lora_weights(encoder).items())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"hada_w1_a": 1, "alpha": 1}, "fc1: the file has hada_w1_a, so this is not a standard LoRA"),
        ({"lora_down.weight": 1, "lora_up.weight": 1, "dora_scale": 1}, "fc1: the file has dora_scale, so this is not"),
        ({"lora_down.weight": 1, "alpha": 1}, r"fc1: the file has no lora_up.weight; it is incomplete"),
    ],
)
def test_other_kinds_of_layers_are_refused(tensors: dict[str, int], message: str) -> None:
    encoder = tiny_text_encoder()
    add_lora(encoder, names_of(encoder), rank=4, alpha=4, seed=0)
    layer = {name: torch.ones(size) for name, size in tensors.items()}
    with pytest.raises(Refusal, match=message):
        load_adapter(encoder, {"encoder.layers.0.mlp.fc1": layer})


def test_disabled_is_the_base_model_and_enabled_again_is_as_before() -> None:
    encoder = tiny_text_encoder()
    ids = torch.tensor([[1, 2, 3, 19]])
    base = encoder(ids).last_hidden_state
    add_lora(encoder, names_of(encoder), rank=4, alpha=4, seed=0)
    load_lora_weights(encoder, random_weights(encoder, alpha=4))
    freeze_unreachable(encoder, range(1))
    trained = encoder(ids).last_hidden_state
    trainable = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]

    with pytest.raises(KeyError), adapter_disabled(encoder, tiny_unet()):
        assert torch.equal(encoder(ids).last_hidden_state, base)
        raise KeyError

    assert not torch.equal(trained, base)
    assert torch.equal(encoder(ids).last_hidden_state, trained)
    assert [name for name, parameter in encoder.named_parameters() if parameter.requires_grad] == trainable
    assert len(trainable) == 12
    assert all(name.startswith("encoder.layers.0.") for name in trainable)


def test_on_the_meta_device_there_are_only_shapes() -> None:
    with torch.device("meta"):
        unet = tiny_unet()
    add_lora(unet, names_of(unet), rank=4, alpha=4, seed=0)

    down = lora_weights(unet)[f"{TRANSFORMER}.attn2.to_k"].down
    assert (down.shape, down.device.type) == ((4, 12), "meta")
