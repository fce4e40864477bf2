"""Every upscaler builds, trains and is what spandrel takes it for; what is wrong is refused by name."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import spandrel
import spandrel.architectures
import torch

from lora_trainer.errors import Refusal
from lora_trainer.models.sr_families import ABSENT, ALIASES, SCALES
from lora_trainer.models.sr_networks import (
    NETWORKS,
    SrNetwork,
    build_network,
    check_network_options,
    overflows_in_fp16,
)

Tiny = Callable[..., SrNetwork]

FIRST: dict[str, str] = {}  # the class -> the first of its names
for _name, (_family, _) in NETWORKS.items():
    FIRST.setdefault(_family.network, _name)

# (name, scale, options): one of each way to upsample, and the odd scales
WAYS: list[tuple[str, int, dict[str, Any]]] = [
    *((name, NETWORKS[name][0].scales[-1], {}) for name in FIRST.values() if name not in ("fdat_tiny",)),
    *((name, 3, {}) for name in ("span", "dat", "realplksr", "swinir_s", "fdat_tiny", "realcugan")),
    ("esrgan", 1, {}),
    ("esrgan", 2, {}),
    ("esrgan", 2, {"use_pixel_unshuffle": False}),
    ("esrgan", 4, {"plus": True}),
    ("fdat_tiny", 4, {}),
    ("fdat_tiny", 8, {"upsampler_type": "pixelshuffle"}),
    ("grl_t", 1, {}),
    ("mosr", 2, {"upsampler": "dysample"}),
    ("mosr", 2, {"upsampler": "gps"}),
    ("rcan", 1, {"unshuffle_mod": True}),
    ("realcugan", 2, {}),
    ("realcugan", 2, {"fast": True}),
    ("realcugan", 4, {"pro": True}),
    ("realplksr", 2, {"upsampler": "dysample"}),
    ("realplksr", 2, {"layer_norm": False}),
    ("span", 2, {"norm": True}),
    ("swin2sr_s", 4, {"upsampler": "nearest+conv"}),
    ("swinir_s", 2, {"upsampler": "nearest+conv"}),
]


def side_px(network: SrNetwork) -> int:
    return -(-max(16, network.min_size) // network.size_multiple) * network.size_multiple


@pytest.mark.parametrize(("name", "scale", "options"), WAYS, ids=str)
def test_it_enlarges_and_a_gradient_reaches_exactly_the_trained_weights(
    tiny_upscaler: Tiny, name: str, scale: int, options: dict[str, Any]
) -> None:
    network = tiny_upscaler(name, scale, **options)
    side = side_px(network)
    output = network.module.train()(torch.rand(2, 3, side, side))
    assert output.shape == (2, 3, scale * side, scale * side)
    output.square().mean().backward()
    reached = {name for name, weight in network.module.named_parameters() if weight.grad is not None}
    assert network.trained_weights().keys() == reached


@pytest.mark.parametrize(("name", "scale", "options"), WAYS, ids=str)
def test_spandrel_takes_it_for_what_it_is(tiny_upscaler: Tiny, name: str, scale: int, options: dict[str, Any]) -> None:
    network = tiny_upscaler(name, scale, **options)
    read = spandrel.MAIN_REGISTRY.load(dict(network.module.state_dict()))
    assert (read.architecture.id, read.scale) == (network.architecture, scale)
    assert network.unsafe_fp16 is not read.supports_half
    assert network.unsafe_bf16 is not read.supports_bfloat16
    size = read.size_requirements
    assert network.size_multiple == size.multiple_of
    assert network.min_size == max(1, size.minimum, size.multiple_of)


def test_the_published_sizes() -> None:
    """Millions of parameters as the papers and model cards have them."""
    published = {
        ("compact", 4): 0.621,
        ("dat_2", 4): 11.21,
        ("dat_light", 4): 0.573,
        ("esrgan", 4): 16.698,
        ("hat_s", 4): 9.62,
        ("omnisr", 4): 0.805,
        ("rcan", 4): 15.592,
        ("realplksr", 4): 7.39,
        ("rgt_s", 4): 10.20,
        ("safmn", 4): 0.240,
        ("swinir_m", 4): 11.90,
        ("swinir_s", 4): 0.930,
    }
    for (name, scale), millions in published.items():
        weights = build_network(name, scale, {}).trained_weights().values()
        assert sum(weight.numel() for weight in weights) / 1e6 == pytest.approx(millions, abs=0.006), name


def test_the_copies_that_span_keeps_for_eval_are_not_trained() -> None:
    span = build_network("SPAN", 2, {})
    weights, trained = dict(span.module.named_parameters()), span.trained_weights()
    assert len(weights) - len(trained) == 40
    assert all(".eval_conv." in name for name in weights.keys() - trained.keys())


def test_the_table_fits_the_constructors() -> None:
    for name, (family, sizes) in NETWORKS.items():
        package = getattr(spandrel.architectures, family.architecture)
        constructor = inspect.signature(getattr(package, family.network).__init__).parameters
        assert name == name.casefold()
        if family.scale_option:
            assert family.scale_option in constructor
        assert {*sizes, *family.hidden, *family.fixed} - family.extra.keys() <= constructor.keys() | {"learn_residual"}
        assert family.choices.keys() <= constructor.keys() | family.extra.keys()
        assert not sizes.keys() & family.fixed.keys()
        assert set(family.scales) <= set(SCALES)


def test_every_name_can_be_had_at_some_scale_and_in_any_case() -> None:
    for name, (family, _) in NETWORKS.items():
        assert any(not check_network_options(name.upper(), {}, scale) for scale in family.scales), name
    assert set(ALIASES.values()) <= NETWORKS.keys()
    assert not ALIASES.keys() & NETWORKS.keys()
    assert not ABSENT.keys() & (NETWORKS.keys() | ALIASES.keys())


@pytest.mark.parametrize(
    ("type", "option", "value", "scale", "text"),
    [
        ("swinr", "type", None, 4, "there is no architecture swinr; did you mean swinir?"),
        ("xyz", "type", None, 4, "there is no architecture xyz; choose one of atd, compact,"),
        ("MAN", "type", None, 4, "there is no MAN here: traiNNer-redux has it, but spandrel does not"),
        ("ipt", "type", None, 4, "there is no ipt here: IPT takes pictures of one size"),
        ("span", "nrom", True, 2, "SPAN has no option nrom; did you mean norm?; there is bias, feature_channels, norm"),
        ("span", "norm", 1, 2, "found 1; write true or false"),
        ("span", "feature_channels", "48", 2, "found '48'; write a whole number from 1 upwards"),
        ("span", "feature_channels", 0, 2, "found 0; write a whole number from 1 upwards"),
        ("span", "feature_channels", True, 2, "found True; write a whole number from 1 upwards"),
        ("span", "scale", 4, 2, "the scale is set by the key scale, which is 2; remove it here"),
        ("swinir_s", "upscale", 4, 2, "the scale is set by the key scale, which is 2; remove it here"),
        ("span", "num_in_ch", 1, 2, "found 1; pictures have the 3 channels of RGB here, so remove it"),
        ("span", "img_range", 1.0, 2, "found 1.0; other programs take files of SPAN to have 255.0, so remove it"),
        ("dat", "expansion_factor", "4", 2, "found '4'; write a number"),
        ("dat", "depth", [6, "6"], 2, "found [6, '6']; write a list of whole numbers, as [6, 6, 6, 6, 6, 6]"),
        ("dat", "depth", [], 2, "found []; write a list of whole numbers, as [6, 6, 6, 6, 6, 6]"),
        ("dat", "depth", [6, 6], 2, "the lists of stages differ in length (depth has 2, num_heads has 6); make them"),
        ("swinir_s", "embed_dim", 62, 2, "embed_dim 62 cannot be shared among [6, 6, 6, 6] heads; make it a multiple"),
        ("swinir_s", "upsampler", "pixelshufle", 2, "found 'pixelshufle'; write pixelshuffle or pixelshuffledirect or"),
        ("plksr", "ccm_type", "D", 2, "found 'D'; write CCM or ICCM or DCCM"),
        ("esrgan", "type", None, 3, "ESRGAN has no scale 3: it would train, but every other program would read the"),
        ("swiftsrgan", "type", None, 3, "SwiftSRGAN has no scale 3: it would give 2x pictures; set scale to 1 or 2 or"),
        ("span", "type", None, 5, "SPAN has no scale 5; set scale to 1 or 2 or 3 or 4 or 8"),
        ("mmrealsr", "type", None, 2, "MMRealSR has no scale 2; set scale to 4"),
        ("nafnet32", "type", None, 2, "NAFNet has no scale 2; set scale to 1"),
        ("safmnbcie", "type", None, 2, "SAFMNBCIE has no scale 2; set scale to 1"),
        ("scunet", "type", None, 4, "SCUNet has no scale 4; set scale to 1"),
        ("realcugan", "type", None, 8, "RealCUGAN has no scale 8; set scale to 2 or 3 or 4"),
        ("realcugan", "fast", True, 3, 'RealCUGAN has a fast network at 2x only; at 3x leave "fast" out'),
        ("realcugan", "type", None, 1, "RealCUGAN has no scale 1; set scale to 2 or 3 or 4"),
        ("swinir_l", "type", None, 3, 'the upsampler "nearest+conv" of SwinIR makes 2 or 4 or 8 times larger'),
        ("swinir_s", "upsampler", "nearest+conv", 1, 'not 1; set "upsampler": "pixelshuffle"'),
        ("swin2sr_s", "upsampler", "nearest+conv", 2, 'the upsampler "nearest+conv" of Swin2SR makes 4 times larger'),
        ("fdat_tiny", "type", None, 8, 'the upsampler "transpose+conv" of FDAT ends at 4x; set "upsampler_type": "pix'),
        ("rcan", "norm", True, 2, "RCAN with norm expects pictures from 0 to 255 and cannot be read back from"),
        ("rcan", "type", None, 1, 'a 1x RCAN cannot be read back by other programs; set "unshuffle_mod": true'),
        ("grl_s", "type", None, 1, 'a 1x GRL with the upsampler "pixelshuffle" cannot be read back; set "upsa'),
        ("dctlsa", "num_modules", 5, 2, "found 5; other programs take files of DCTLSA to have 6, so remove it"),
        ("dctlsa", "nf", 12, 2, "DCTLSA shares nf among 5 heads; make it a multiple of 5"),
        ("scunet", "dim", 32, 1, "SCUNet halves dim and shares it among heads of 32; make dim a multiple of 64"),
        ("compact", "learn_residual", False, 2, "found False; other programs take files of Compact to have true, so"),
        ("seemore_t", "topk", 2, 2, "found 2; other programs take files of SeemoRe to have 1, so remove it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(type: str, option: str, value: object, scale: int, text: str) -> None:
    options = {} if option == "type" else {option: value}
    (problem,) = check_network_options(type, options, scale)
    assert problem.path == (option,)
    assert text in problem.text
    with pytest.raises(Refusal) as refused:
        build_network(type, scale, options)
    assert refused.value.problems == (f"network_g {option}: {problem.text}",)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    problems = check_network_options("esrgan", {"num_bloks": 3, "plus": "yes"}, 3)
    assert [problem.path for problem in problems] == [("num_bloks",), ("plus",), ("type",)]


def test_what_the_templates_of_trainner_redux_hold_is_taken() -> None:
    for type, scale, options in (
        ("ESRGAN", 4, {"use_pixel_unshuffle": True, "in_nc": 3, "out_nc": 3, "num_filters": 64, "num_blocks": 23}),
        ("RealPLKSR", 4, {"in_ch": 3, "out_ch": 3, "upsampler": "pixelshuffle", "layer_norm": True, "norm_groups": 4}),
        ("dat_2", 2, {"use_chk": True, "qk_scale": None, "img_range": 1.0, "expansion_factor": 2}),
        ("SPAN", 2, {"norm": False, "img_range": 255.0, "rgb_mean": [0.4488, 0.4371, 0.404]}),
        ("rcan", 4, {"rgb_range": 255, "norm": False, "res_scale": 1, "act_mode": "relu"}),
        ("swinir_m", 4, {"start_unshuffle": 1, "ape": False, "mlp_ratio": 2, "upscale": 4}),
        ("mosr", 4, {"upsampler": "pixelshuffle"}),
        ("grl_t", 4, {"stripe_groups": [None, None], "fairscale_checkpoint": False}),
    ):
        assert check_network_options(type, options, scale) == []


def test_esrgan_at_small_scales_is_the_4x_network_on_unshuffled_pixels(tiny_upscaler: Tiny) -> None:
    for scale, channels in ((1, 48), (2, 12)):
        network = tiny_upscaler("esrgan", scale)
        assert network.module.state_dict()["model.0.weight"].shape[1] == channels
        assert (network.options["scale"], network.options["shuffle_factor"]) == (4, 4 // scale)
    assert tiny_upscaler("esrgan", 4).options["shuffle_factor"] is None


def test_rcan_works_from_0_to_1_and_says_so(tiny_upscaler: Tiny) -> None:
    network = tiny_upscaler("rcan", 2, rgb_range=255)
    assert (network.options["norm"], network.options["rgb_range"]) == (False, 1)
    assert network.notes == ("RCAN: rgb_range has no effect without norm, and norm is off; pictures go from 0 to 1",)
    assert network.module(torch.rand(1, 3, 16, 16)).abs().max() < 10


def test_what_only_the_constructor_finds_wrong_is_refused_with_the_options(tiny_upscaler: Tiny) -> None:
    with pytest.raises(Refusal, match=r"network_g: dat cannot be built 2x with embed_dim 16, .*split_size \[4\]"):
        tiny_upscaler("dat", 2, split_size=[4])


def test_what_overflows_in_fp16_is_known_before_it_is_built() -> None:
    assert overflows_in_fp16("DAT_2", 4, {})
    assert not overflows_in_fp16("span", 2, {})
    assert not overflows_in_fp16("realplksr", 2, {})
    assert overflows_in_fp16("realplksr", 2, {"layer_norm": False})


def test_a_seemore_takes_one_picture_at_a_time_in_eval(tiny_upscaler: Tiny) -> None:
    network = tiny_upscaler("seemore_t", 2, num_layers=2).module.eval()
    assert tiny_upscaler("seemore_t", 2).one_at_a_time
    assert network(torch.rand(1, 3, 16, 16)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("name", ["mmrealsr", "span"])
def test_modules_can_be_copied_and_pickled(tiny_upscaler: Tiny, name: str) -> None:
    network = tiny_upscaler(name, 4)
    picture = torch.rand(1, 3, 16, 16)
    expected = network.module.eval()(picture)
    for other in (copy.deepcopy(network.module), pickle.loads(pickle.dumps(network.module))):
        assert torch.equal(other.eval()(picture), expected)


def test_a_twin_has_the_same_make_and_leaves_the_random_numbers_alone(tiny_upscaler: Tiny) -> None:
    network = tiny_upscaler("dat", 2)
    before = torch.get_rng_state()
    twin = network.twin()
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: value.shape for name, value in twin.state_dict().items()} == {
        name: value.shape for name, value in network.module.state_dict().items()
    }
