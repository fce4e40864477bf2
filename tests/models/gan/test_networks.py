"""The networks against slow ones written from the equations, and against the official names and shapes."""

from __future__ import annotations

import copy
import gzip
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_trainer.models.gan.creps import SynthesisNetwork as Creps
from lora_trainer.models.gan.discriminator import with_group_deviation
from lora_trainer.models.gan.half_precision import HalfPrecision
from lora_trainer.models.gan.mapping import Generator
from lora_trainer.models.gan.running_statistics import collected_statistics
from lora_trainer.models.gan.stylegan3 import schedule
from lora_trainer.models.gan.table import ARCHITECTURES, GanSize, build_discriminator, build_generator
from tests.models.gan.slow_networks import creps, discriminator, mapping, part, stylegan2, stylegan3

SMALL = GanSize(32, cbase=64, cmax=8, c_dim=3)
DIMS = (20, 24)
LABELS = torch.eye(3, dtype=torch.float64)[[0, 2, 1, 0]]
CONFIGS = list(ARCHITECTURES)


@lru_cache(maxsize=1)
def official() -> dict[str, Any]:
    packed = (Path(__file__).parents[2] / "golden" / "gan_networks.json.gz").read_bytes()
    return json.loads(gzip.decompress(packed))


def shaken(network: nn.Module) -> nn.Module:
    """With no weight at a value that would hide it."""
    generator = torch.Generator().manual_seed(5)
    network.double()
    with torch.no_grad():
        for weight in network.parameters():
            weight += torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * 0.1
        for name, buffer in network.named_buffers():
            if name.endswith("magnitude_ema"):
                buffer.fill_(0.5)
    return network


@lru_cache(maxsize=4)
def generator(cfg: str) -> Generator:
    network = shaken(build_generator(cfg, SMALL, seed=3, dims=DIMS))
    assert isinstance(network, Generator)
    return network


def latents(count: int = 4) -> Tensor:
    return torch.randn(count, DIMS[0], generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def official_schedule(cfg: str, resolution: int) -> list[dict[str, Any]]:
    """As the lists of the official networks, for the small size."""
    radial = cfg.endswith("r")
    width = 2 if radial else 1
    specs = schedule(resolution, 3, 64 * width, 8 * width, 1 if radial else 3, radial, 4)
    layers = [{"name": s.name, "k": s.kernel, "padding": s.padding, "up": s.up, "down": s.down} for s in specs]
    return [{"size": 36, "sampling_rate": 16, "bandwidth": 2.0}, *layers]


@pytest.mark.parametrize("name", official()["networks"])
def test_names_shapes_and_kinds_are_the_official_ones(name: str) -> None:
    wanted = official()["networks"][name]
    size = GanSize(wanted["resolution"], c_dim=wanted["c_dim"])
    with torch.device("meta"):
        if wanted["cfg"] == "discriminator":
            network: nn.Module = build_discriminator(size, freezed=wanted["freezed"])
        else:
            network = build_generator(wanted["cfg"], size)
            assert network.num_ws == wanted["num_ws"]
    trained = dict(network.named_parameters())
    found = [
        [key, "param" if key in trained else "buffer", *value.shape] for key, value in network.state_dict().items()
    ]
    assert found == wanted["tensors"]


@pytest.mark.parametrize("name", official()["schedules"])
def test_the_layers_of_stylegan3_are_the_official_ones(name: str) -> None:
    start, *wanted = official()["schedules"][name]
    cfg, resolution = name.rsplit("_", 1)
    radial = cfg.endswith("r")
    width = 2 if radial else 1
    specs = schedule(int(resolution), 3, 32768 * width, 512 * width, 1 if radial else 3, radial, 4)
    first = specs[0].before
    assert [first.channels, first.size, first.rate] == [start["channels"], start["size"], start["sampling_rate"]]
    for spec, layer in zip(specs, wanted, strict=True):
        assert spec.name == layer["name"]
        assert [spec.before.cutoff, spec.after.cutoff] == pytest.approx([layer["in_cutoff"], layer["out_cutoff"]])
        halves = [layer["in_half_width"], layer["out_half_width"]]
        assert [spec.before.half_width, spec.after.half_width] == pytest.approx(halves)
        assert [spec.up, spec.down, spec.up_taps, spec.down_taps, spec.kernel] == [
            layer[key] for key in ("up", "down", "up_taps", "down_taps", "k")
        ]
        assert [*spec.padding] * 2 == layer["padding"]
        assert (spec.radial, spec.critical, spec.half) == (layer["radial"], layer["critical"], layer["fp16"])


@pytest.mark.parametrize("cfg", CONFIGS)
def test_a_generator_is_its_equations(cfg: str) -> None:
    network, state = generator(cfg), generator(cfg).state_dict()
    with torch.no_grad():
        w = mapping(latents(), LABELS, part(state, "mapping."))
        ws = network.mapping(latents(), LABELS)
        torch.testing.assert_close(ws, w[:, None].expand_as(ws), rtol=0, atol=1e-12)
        ws = ws + torch.linspace(-1, 1, ws.shape[1], dtype=ws.dtype)[:, None]  # so that a wrong w shows
        synthesis = part(state, "synthesis.")
        if cfg == "stylegan2":
            wanted, found = stylegan2(ws, synthesis, "const"), network.synthesis(ws, noise="const")
            assert not torch.allclose(network.synthesis(ws, noise="none"), found)
        elif cfg == "creps":
            wanted, found = creps(ws, synthesis, 32), network.synthesis(ws)
        else:
            wanted, found = stylegan3(ws, synthesis, official_schedule(cfg, 32)), network.synthesis(ws)
    assert found.shape == (4, 3, 32, 32)
    torch.testing.assert_close(found, wanted, rtol=0, atol=3e-7 * wanted.abs().max().item())


def test_creps_at_another_size_is_its_equations() -> None:
    network = generator("creps")
    with torch.no_grad():
        ws = network.mapping(latents(2), LABELS[:2])
        wanted = creps(ws, part(network.state_dict(), "synthesis."), 52)
        found = network.synthesis(ws, points=52)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9 * wanted.abs().max().item())
    assert isinstance(network.synthesis, Creps)
    ws = ws.clone().requires_grad_()
    network.synthesis(ws).sum().backward()
    without = {name for name, weight in network.synthesis.named_parameters() if weight.grad is None}
    network.zero_grad(set_to_none=True)
    assert without == set(network.synthesis.unused_parameters())


def test_a_user_can_move_and_turn_stylegan3s_picture() -> None:
    network = copy.deepcopy(generator("stylegan3-r"))
    turn = torch.tensor([[0.8, -0.6, 0.1], [0.6, 0.8, -0.05], [0, 0, 1]], dtype=torch.float64)
    with torch.no_grad():
        ws = network.mapping(latents(2), LABELS[:2])
        before = network.synthesis(ws)
        network.synthesis.input.transform.copy_(turn)  # type: ignore[union-attr]
        found = network.synthesis(ws)
        wanted = stylegan3(ws, part(network.state_dict(), "synthesis."), official_schedule("stylegan3-r", 32))
    torch.testing.assert_close(found, wanted, rtol=0, atol=3e-7 * wanted.abs().max().item())
    assert (found - before).abs().max() > 0.1 * before.abs().max()


@pytest.mark.parametrize("c_dim", [0, 3])
def test_the_discriminator_is_its_equations(c_dim: int) -> None:
    size = GanSize(32, cbase=64, cmax=8, c_dim=c_dim)
    network = shaken(build_discriminator(size, seed=4, mbstd_group=2))
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    c = LABELS if c_dim else None
    wanted = discriminator(images, c, network.state_dict(), 2)
    torch.testing.assert_close(network(images, c), wanted, rtol=0, atol=1e-12)


def test_frozen_layers_compute_the_same_and_are_not_trained() -> None:
    free, frozen = (build_discriminator(SMALL, seed=4, freezed=freezed) for freezed in (0, 5))
    frozen.load_state_dict(free.state_dict())
    images, labels = torch.randn(4, 3, 32, 32), LABELS.float()
    assert torch.equal(free(images, labels), frozen(images, labels))
    gone = dict(free.named_parameters()).keys() - dict(frozen.named_parameters()).keys()
    layers = ["b32.fromrgb", "b32.conv0", "b32.conv1", "b32.skip", "b16.conv0"]
    assert {name.rsplit(".", 1)[0] for name in gone} == set(layers)


def test_groups_of_a_split_batch_are_those_of_the_whole() -> None:
    x = torch.randn(8, 2, 4, 4)
    whole = with_group_deviation(x, 2)
    assert whole.shape == (8, 3, 4, 4)
    parts = [with_group_deviation(x[first::2], 2) for first in range(2)]
    assert all(torch.equal(whole[first::2], parts[first]) for first in range(2))
    with pytest.raises(ValueError, match="mbstd_group 3 does not divide a batch of 8 images"):
        with_group_deviation(x, 3)


def test_truncation_pulls_towards_the_mean_up_to_the_cutoff() -> None:
    network = copy.deepcopy(generator("stylegan2"))
    network.mapping.w_avg.copy_(torch.randn(DIMS[1]))
    with torch.no_grad():
        full = network.mapping(latents(), LABELS)
        near = network.mapping(latents(), LABELS, truncation_psi=0.25, truncation_cutoff=3)
    mean = network.mapping.w_avg
    torch.testing.assert_close(near[:, :3], mean + 0.25 * (full[:, :3] - mean))
    assert torch.equal(near[:, 3:], full[:, 3:])


def test_averages_move_only_when_asked_and_as_published() -> None:
    network = copy.deepcopy(generator("stylegan3-t"))
    before = {name: value.clone() for name, value in network.named_buffers()}
    with torch.no_grad():
        network(latents(), LABELS)
        assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
        network(latents(), LABELS, update_emas=True)
        ws = network.mapping(latents(), LABELS)
        x = network.synthesis.input(ws[:, 0])
    torch.testing.assert_close(network.mapping.w_avg, 0.002 * ws[:, 0].mean(0))
    first = network.synthesis.get_submodule(network.synthesis.layer_names[0])
    torch.testing.assert_close(first.magnitude_ema, 0.999 * 0.5 + 0.001 * x.square().mean())


def test_a_split_batch_moves_the_averages_like_the_whole_one() -> None:
    found = []
    for parts in (1, 2):
        network = copy.deepcopy(generator("stylegan3-t"))
        with torch.no_grad(), collected_statistics(network):
            for z, c in zip(latents().chunk(parts), LABELS.chunk(parts), strict=True):
                network(z, c, update_emas=True)
        found.append({name: value for name, value in network.named_buffers() if name.endswith(("_ema", "_avg"))})
    assert len(found[0]) == 16
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])
        assert not torch.equal(value, dict(generator("stylegan3-t").named_buffers())[name])


def test_noise_can_be_given() -> None:
    network = generator("stylegan2")
    with torch.no_grad():
        ws = network.mapping(latents(), LABELS)
        noise = torch.randn(4, network.synthesis.noise_size, dtype=ws.dtype)
        whole = network.synthesis(ws, noise=noise)
        single = network.synthesis(ws[2:3], noise=noise[2:3])
        constants = torch.cat([b.flatten() for n, b in network.named_buffers() if n.endswith("noise_const")])
        torch.testing.assert_close(
            network.synthesis(ws, noise=constants.expand(4, -1)), network.synthesis(ws, noise="const")
        )
    torch.testing.assert_close(whole[2:3], single)
    with pytest.raises(ValueError, match="noise is 'some'"):
        network.synthesis(ws, noise="some")


def test_the_seed_makes_the_weights() -> None:
    first, again, other = (build_generator("stylegan3-t", SMALL, seed=seed, dims=DIMS) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.mapping.fc0.weight, other.mapping.fc0.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cfg", [*CONFIGS, "discriminator"])
def test_half_precision_is_near_and_never_overflows(cfg: str, dtype: torch.dtype) -> None:
    size = GanSize(32, cbase=256, cmax=16, half=HalfPrecision(2, dtype, ("cpu",)))
    if cfg == "discriminator":
        network: nn.Module = build_discriminator(size, seed=2)
        inputs, options = torch.randn(4, 3, 32, 32), {}
    else:
        network = build_generator(cfg, size, seed=2, dims=DIMS)
        inputs, options = latents().float(), {"noise": "const"} if cfg == "stylegan2" else {}
    with torch.no_grad():
        full = network(inputs, force_fp32=True, **options)
        half = network(inputs, **options)
    assert half.dtype == torch.float32
    error = (half - full).norm() / full.norm()
    assert 1e-6 < error < (0.01 if dtype == torch.float16 else 0.06)
    if cfg in ("stylegan2", "stylegan3-t"):  # large weights do not matter
        with torch.no_grad():
            for name, weight in network.named_parameters():
                weight *= 3e4 if "conv" in name and name.endswith("weight") and "affine" not in name else 1.0
            assert network(inputs, **options).isfinite().all()


def derivatives(logits: Tensor, seen: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the squared gradient by what was seen: first derivatives by all weights of second ones."""
    (gradient,) = torch.autograd.grad(logits.sum(), seen, create_graph=True)
    found = torch.autograd.grad(gradient.square().sum(), list(weights.values()), allow_unused=True)
    return {"seen": gradient} | {name: each for name, each in zip(weights, found, strict=True) if each is not None}


def test_the_discriminators_second_derivatives_are_those_of_its_equations() -> None:
    network = shaken(build_discriminator(SMALL, seed=4, mbstd_group=2))
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    weights = dict(network.named_parameters())
    found = derivatives(network(images, LABELS), images, weights)
    wanted = derivatives(discriminator(images, LABELS, {**network.state_dict(), **weights}, 2), images, weights)
    assert found.keys() == wanted.keys()
    assert len(found) > 20
    for name, each in wanted.items():
        torch.testing.assert_close(found[name], each, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cfg", ["stylegan2", "creps"])
def test_a_generators_second_derivatives_are_those_of_its_equations(cfg: str) -> None:
    network = generator(cfg)
    ws = network.mapping(latents(2), LABELS[:2]).detach().requires_grad_()
    direction = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    weights = dict(network.synthesis.named_parameters())
    state = {**network.synthesis.state_dict(), **weights}
    if cfg == "stylegan2":
        images, wanted_images = network.synthesis(ws, noise="const"), stylegan2(ws, state, "const")
    else:
        images, wanted_images = network.synthesis(ws), creps(ws, state, 32)
    found = derivatives((images * direction).sum(), ws, weights)
    wanted = derivatives((wanted_images * direction).sum(), ws, weights)
    assert found.keys() == wanted.keys()
    for name, each in wanted.items():
        torch.testing.assert_close(found[name], each, rtol=1e-7, atol=1e-8 * each.abs().max().item())


@pytest.mark.parametrize("cfg", ["stylegan3-t", "stylegan3-r"])
def test_stylegan3s_gradients_are_those_of_its_equations(cfg: str) -> None:
    network = generator(cfg)
    ws = network.mapping(latents(2), LABELS[:2]).detach().requires_grad_()
    direction = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    weights = dict(network.synthesis.named_parameters())
    names = [name for name in weights if not name.startswith("input.affine")]  # which the slow one does not derive
    state = {**network.synthesis.state_dict(), **weights}
    found, wanted = (
        torch.autograd.grad((images * direction).sum(), [ws, *(weights[name] for name in names)])
        for images in (network.synthesis(ws), stylegan3(ws, state, official_schedule(cfg, 32)))
    )
    for mine, each in zip(found[1:], wanted[1:], strict=True):
        torch.testing.assert_close(mine, each, rtol=1e-5, atol=1e-5 * each.abs().max().item())
    of_styles, expected = found[0][:, 1:], wanted[0][:, 1:]
    torch.testing.assert_close(of_styles, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
