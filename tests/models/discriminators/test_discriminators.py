"""Discriminators: shapes, spectral norm, published names, and options that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lora_trainer.models.discriminators.table import (
    DISCRIMINATORS,
    build_discriminator,
    check_discriminator_options,
    check_size,
)

SMALL: dict[str, dict[str, Any]] = {name: {"num_feat": 8} for name in DISCRIMINATORS}


def built(name: str, **options: Any) -> nn.Module:
    return build_discriminator(name, {**SMALL[name], **options}, seed=1)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_gradients_reach_every_weight_and_the_picture(name: str) -> None:
    network = built(name)
    image = torch.rand(4, 3, 128, 128, requires_grad=True)
    logits = network(image)
    parts = logits if isinstance(logits, list) else [logits]
    assert all(len(part) == 4 for part in parts)
    sum(part.square().mean() for part in parts).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())
    assert image.grad is not None and image.grad.abs().sum() > 0


@pytest.mark.parametrize(("name", "sides"), [("dunet", (37, 50)), ("unetdiscriminatorsn", (37, 50))])
def test_a_u_net_gives_a_logit_for_each_pixel(name: str, sides: tuple[int, int]) -> None:
    assert built(name)(torch.rand(2, 3, *sides)).shape == (2, 1, *sides)


@pytest.mark.parametrize("name", ["dunet", "unetdiscriminatorsn", "patchgandiscriminatorsn"])
def test_spectral_norm_holds_the_largest_singular_value_at_one(name: str) -> None:
    network = built(name).train()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(5)
        for _ in range(30):  # each pass is a step of the power iteration
            network(torch.rand(2, 3, 64, 64))
    network.eval()
    network(torch.rand(2, 3, 64, 64))
    normed = [
        module.weight for module in network.modules()
        if isinstance(module, nn.Conv2d)
        and (hasattr(module, "weight_orig") or hasattr(module, "parametrizations"))
    ]  # fmt: skip
    assert len(normed) >= 5
    for weight in normed:
        assert float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2)) == pytest.approx(1, abs=0.02)


def test_real_esrgans_names_and_shapes() -> None:
    state = build_discriminator("UNetDiscriminatorSN", {}, seed=0).state_dict()
    assert len(state) == 28
    assert state["conv0.weight"].shape == (64, 3, 3, 3)
    assert state["conv1.weight_orig"].shape == (128, 64, 4, 4)
    assert state["conv1.weight_u"].shape == (128,)
    assert state["conv4.weight_orig"].shape == (256, 512, 3, 3)
    assert state["conv9.weight"].shape == (1, 64, 3, 3)
    assert "conv1.bias" not in state


def test_spectral_norm_of_real_esrgans_is_that_of_numpy() -> None:
    network = built("unetdiscriminatorsn").train()
    weight = network.conv4.weight_orig.detach().double().flatten(1).numpy()
    for _ in range(100):
        network(torch.rand(1, 3, 16, 16))
    largest = np.linalg.svd(weight, compute_uv=False)[0]
    np.testing.assert_allclose(network.conv4.weight.detach().flatten(1).numpy(), weight / largest, rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_two_passes_before_the_backward_of_both(name: str) -> None:
    """As in a step: the power iteration of the second pass leaves alone what the first one's backward needs."""
    network = built(name).train()
    image = torch.rand(2, 3, 128, 128)
    first, second = (network(image) for _ in range(2))
    for logits in (first, second):
        sum(part.mean() for part in (logits if isinstance(logits, list) else [logits])).backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_basicsrs_names_of_the_vgg_style() -> None:
    state = build_discriminator("vggstylediscriminator", {"input_size": 256}, seed=0).state_dict()
    assert state["conv5_1.weight"].shape == (512, 512, 4, 4)
    assert state["bn0_1.running_mean"].shape == (64,)
    assert "bn0_0.weight" not in state
    assert state["linear1.weight"].shape == (100, 512 * 4 * 4)


def test_batch_norm_sees_real_and_made_pictures_apart() -> None:
    network = built("vggstylediscriminator").train()
    real, fake = torch.rand(2, 3, 128, 128), torch.zeros(2, 3, 128, 128)
    together = network(torch.cat([real, fake]), parts=2)
    torch.testing.assert_close(together[:2], network(real), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(torch.cat([real, fake]))[:2], together[:2], atol=1e-4)


def test_the_weights_follow_from_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    first, second, other = (build_discriminator("dunet", {"num_feat": 8}, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.first.weight, second.first.weight)
    assert not torch.equal(first.first.weight, other.first.weight)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("dunett", {}, "there is no discriminator dunett; did you mean dunet?; there is dunet, unetdiscriminatorsn"),
        ("dunet", {"num_fea": 8}, "dunet has no option num_fea; did you mean num_feat?; there is num_in_ch, num_feat"),
        ("dunet", {"num_feat": "8"}, "num_feat is '8'; write a whole number from 1 upwards"),
        ("unetdiscriminatorsn", {"skip_connection": 1}, "skip_connection is 1; write true or false"),
        ("dunet", {"num_in_ch": 1}, "num_in_ch is 1; pictures have the 3 channels of RGB, so remove it"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], text: str) -> None:
    (problem,) = check_discriminator_options(name, options)
    assert problem.startswith(text)


def test_sizes_that_a_discriminator_cannot_see() -> None:
    assert check_size("dunet", {}, 64) == ""
    assert check_size("vggstylediscriminator", {}, 128) == ""
    assert "the high-resolution crops have 96 pixels" in check_size("vggstylediscriminator", {"input_size": 128}, 96)
    assert check_size("vggstylediscriminator", {"input_size": 100}, 100) == "input_size is 100; write 128 or 256"
    assert "at least 64 pixels; they have 48" in check_size("multiscalepatchgandiscriminatorsn", {}, 48)


@pytest.mark.parametrize("options", [{}, {"n_layers": 1}, {"n_layers": 5}, {"num_d": 3}, {"n_layers": 2, "num_d": 1}])
def test_the_least_size_of_a_patchgan_is_one_that_it_sees(options: dict[str, int]) -> None:
    name = "patchgandiscriminatorsn" if "num_d" not in options else "multiscalepatchgandiscriminatorsn"
    least = next(side for side in range(1, 1000) if not check_size(name, options, side))
    logits = built(name, **options)(torch.rand(1, 3, least, least))
    assert all(min(part.shape[-2:]) >= 2 for part in ([logits] if isinstance(logits, torch.Tensor) else logits))
    with pytest.raises(RuntimeError, match="greater than actual input size"):
        built(name, **options)(torch.rand(1, 3, least // 2, least // 2))


def test_a_logit_of_a_patchgan_is_of_70_pixels() -> None:
    network = built("patchgandiscriminatorsn").eval()
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    network(image)[0, 0, 15, 15].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70
