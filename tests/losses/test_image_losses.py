"""The table of losses: names, options, parts, needs."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.losses.colour import color_loss, ncc_loss
from lora_trainer.losses.frequency import focal_frequency_loss
from lora_trainer.losses.hsluv import hsluv_loss
from lora_trainer.losses.image_losses import IMAGE_LOSSES, LossInputs, loss_named
from lora_trainer.losses.local_discriminative import ldl_loss
from lora_trainer.losses.ms_ssim_l1 import ms_ssim_l1_loss
from lora_trainer.losses.pixel import charbonnier_loss, psnr_loss
from lora_trainer.losses.ssim import mssim_loss
from lora_trainer.losses.vgg import build_vgg19

NETWORKS = {"perceptualloss", "distsloss", "lpipsloss"}
PLAIN = sorted(set(IMAGE_LOSSES) - NETWORKS)


def inputs() -> LossInputs:
    output, target, ema = torch.rand(3, 2, 3, 24, 32, generator=torch_generator("pictures")).unbind(0)
    return LossInputs(output, target, ema, torch.rand(2, 3, 6, 8, generator=torch_generator("lq")))


def test_the_names_of_trainner_redux() -> None:
    assert set(IMAGE_LOSSES) == {
        "l1loss", "mseloss", "charbonnierloss", "psnrloss", "msssiml1loss", "ssimloss", "mssimloss", "hsluvloss",
        "perceptualloss", "ldlloss", "ffloss", "fftloss", "sobeledgeloss", "gradientvarianceloss", "lumaloss",
        "colorloss", "averageloss", "bicubicloss", "cosimloss", "nccloss", "distsloss", "lpipsloss",
    }  # fmt: skip
    assert loss_named("MSSSIML1Loss") is loss_named("msssiml1loss")
    with pytest.raises(KeyError):
        loss_named("ganloss")


@pytest.mark.parametrize("name", PLAIN)
def test_every_loss_gives_a_value_per_sample_with_a_gradient(name: str) -> None:
    loss = loss_named(name)()
    assert loss.needs == (frozenset({"ema_output"}) if name == "ldlloss" else frozenset())
    given = inputs()
    given.output.requires_grad_()
    parts = loss(given)
    assert all(value.shape == (2,) and value.dtype == torch.float32 for value in parts.values())
    assert all(part.startswith(name.removesuffix("loss")) for part in parts)
    sum(parts.values()).mean().backward()
    assert given.output.grad is not None
    assert given.output.grad.isfinite().all()
    assert given.output.grad.abs().max() > 0


@pytest.mark.parametrize("name", PLAIN)
def test_float16_pictures_stay_finite(name: str) -> None:
    given = inputs()
    halves = LossInputs(given.output.half(), given.target.half(), given.ema_output.half(), given.lq.half())
    for half, single in zip(loss_named(name)()(halves).values(), loss_named(name)()(given).values(), strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, single, rtol=0.02, atol=0.005)


@pytest.mark.parametrize("name", PLAIN)
def test_the_loss_of_a_sample_is_its_own(name: str) -> None:
    given = inputs()
    alone = LossInputs(given.output[:1], given.target[:1], given.ema_output[:1])
    options = {"ave_spectrum": False} if name == "ffloss" else {}
    loss = loss_named(name)(**options)
    for part, value in loss(given).items():
        torch.testing.assert_close(value[:1], loss(alone)[part], rtol=1e-4, atol=1e-6)


def test_options_arrive() -> None:
    given = inputs()
    pair = given.output, given.target
    cases = {
        "charbonnierloss": ({"eps": 1e-2}, charbonnier_loss(*pair, eps=1e-2)),
        "psnrloss": ({"to_y": True}, psnr_loss(*pair, to_y=True)),
        "msssiml1loss": (
            {"alpha": 0.7, "gaussian_sigmas": [1, 2], "k": [0.02, 0.05]},
            ms_ssim_l1_loss(*pair, 0.7, (1, 2), (0.02, 0.05)),
        ),
        "mssimloss": (
            {"is_prod": False, "include_luminance": True, "test_y_channel": False},
            mssim_loss(*pair, is_prod=False, include_luminance=True, test_y_channel=False),
        ),
        "colorloss": ({"criterion": "l2", "scale": 2}, color_loss(*pair, "l2", 2)),
        "ffloss": ({"alpha": 0.5, "patch_factor": 4}, focal_frequency_loss(*pair, 0.5, 4)),
        "ldlloss": ({"criterion": "l2", "ksize": 5}, ldl_loss(*pair, given.ema_output, "l2", 5)),
        "nccloss": ({}, ncc_loss(*pair)),
    }
    for name, (options, expected) in cases.items():
        (found,) = loss_named(name)(**options)(given).values()
        torch.testing.assert_close(found, expected)


def test_hsluv_has_three_parts_with_their_weights() -> None:
    given = inputs()
    parts = loss_named("hsluvloss")(hue_weight=0.5, saturation_weight=0.0, criterion="charbonnier")(given)
    bare = hsluv_loss(given.output, given.target, "charbonnier")
    assert list(parts) == ["hsluv_hue", "hsluv_saturation", "hsluv_lightness"]
    for part, weight in (("hue", 0.5), ("saturation", 0.0), ("lightness", 1 / 3)):
        torch.testing.assert_close(parts[f"hsluv_{part}"], weight * bare[part])


def test_the_options_are_those_of_trainner_redux() -> None:
    options = {name: list(inspect.signature(factory).parameters) for name, factory in IMAGE_LOSSES.items()}
    assert options["hsluvloss"] == [
        "criterion",
        "hue_weight",
        "saturation_weight",
        "lightness_weight",
        "downscale_factor",
    ]
    assert options["mssimloss"] == ["downsample", "test_y_channel", "is_prod", "color_space", "include_luminance"]
    assert options["ffloss"] == ["alpha", "patch_factor", "ave_spectrum", "log_matrix", "batch_matrix"]
    assert options["perceptualloss"] == [
        "criterion", "layer_weights", "alpha", "w_lambda", "num_proj_fd", "phase_weight_fd", "stride_fd", "weights",
    ]  # fmt: skip
    assert not any("loss_weight" in names for names in options.values())


@pytest.mark.parametrize("name", PLAIN)
def test_losses_can_be_pickled(name: str) -> None:
    given = inputs()
    loss = loss_named(name)()
    again = pickle.loads(pickle.dumps(loss))
    assert {part: value.tolist() for part, value in again(given).items()} == {
        part: value.tolist() for part, value in loss(given).items()
    }


def test_wrong_options_are_refused_when_the_loss_is_made() -> None:
    for name in ("hsluvloss", "ldlloss", "lumaloss", "colorloss", "averageloss", "bicubicloss", "gradientvarianceloss"):
        with pytest.raises(Refusal, match="there is no criterion 'l3'; write one of l1, l2, mse, charbonnier"):
            loss_named(name)(criterion="l3")
    with pytest.raises(
        Refusal, match=r"^reduction 'sum' is not supported; the losses are means: write mean, or leave it out"
    ):
        loss_named("l1loss")(reduction="sum")
    with pytest.raises(Refusal, match="there is no color_space 'lab'; write one of yiq, ycbcr, lhm"):
        loss_named("mssimloss")(color_space="lab")
    for options in ({}, {"layer_weights": {"conv1_1": 1.0}}):
        with pytest.raises(Refusal, match="there is no criterion 'l3'; write one of charbonnier, l1"):
            loss_named("perceptualloss")(criterion="l3", **options)


def test_ldl_without_the_average_is_an_error_of_the_program() -> None:
    given = inputs()
    with pytest.raises(ValueError, match="ldlloss needs ema_output"):
        loss_named("ldlloss")()(LossInputs(given.output, given.target))


def test_the_perceptual_loss_reads_a_local_file_and_stays_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_vgg19(["conv1_2"])
    file = tmp_path / "vgg19.pth"
    torch.save(network.state_dict(), file)
    loss = loss_named("PerceptualLoss")(criterion="l1", layer_weights={"conv1_2": 2.0}, weights=str(file))
    assert isinstance(loss, nn.Module)
    given = inputs()
    (value,) = loss(given).values()
    apart = network(given.output)["conv1_2"] - network(given.target)["conv1_2"]
    torch.testing.assert_close(value, 2 * apart.abs().mean((1, 2, 3)))
    nn.ModuleList([loss]).train()
    assert not any(module.training for module in loss.modules())
    assert not any(weight.requires_grad for weight in loss.parameters())


def test_the_perceptual_loss_names_the_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        Refusal, match=r"with the weights of VGG19; get vgg19-dcbb9e9d\.pth from https://download\.pytorch"
    ):
        loss_named("perceptualloss")(weights=str(tmp_path / "none.pth"))
