"""The fused filtered leaky ReLU against its composition, by Triton's interpreter, and what stands in its way.

The interpreter does not multiply bf16; for that there is only the compiler.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_trainer.models.gan import fused_filtering
from lora_trainer.models.gan.filtering import Plan, plan_resample
from lora_trainer.models.gan.filtering_tiles import has_tiles
from lora_trainer.models.gan.fused_filtering import fused_filtered_leaky_relu, use_fused_filtering
from lora_trainer.models.gan.half_precision import HalfPrecision
from lora_trainer.models.gan.stylegan3 import SynthesisLayer, SynthesisNetwork, filtered_leaky_relu, schedule

CPU = torch.device("cpu")
KERNELS = "lora_trainer.models.gan.filtering_kernels"
FUSED_LAYERS = 14  # all but ToRGB


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", exc_type=ImportError)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, KERNELS, raising=False)
    monkeypatch.setattr(fused_filtering, "IMAGES", 2)


@pytest.fixture
def like_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_filtering, "_missing", lambda device: None)


def layer_of(index: int, radial: bool = False) -> SynthesisLayer:
    return SynthesisLayer(schedule(32, 3, 256, 8, 1 if radial else 3, radial, 4)[index], 8, 0.999, 2.5)


def passed(bend: Any, x: Tensor, up: Plan, down: Plan, clamp: float | None) -> tuple[Tensor, Tensor]:
    """The result, and the gradient of x for one that is the same in every format."""
    x = x.clone().requires_grad_(True)
    y = bend(x, up, down, clamp)
    of_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return y.detach().float(), torch.autograd.grad(y, x, of_y)[0].float()


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("clamp", [None, 2.5])
@pytest.mark.parametrize(("index", "rates"), [(0, (2, 2)), (5, (4, 2)), (13, (2, 2))])
def test_it_is_as_near_to_the_truth_as_the_composition(
    interpreted: None, index: int, rates: tuple[int, int], clamp: float | None
) -> None:
    layer = layer_of(index)
    assert (layer.spec.up, layer.spec.down) == rates
    side = layer.spec.before.size + 2
    x = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0)).to(torch.float16) * 3
    up, down = layer.plans(x)
    assert has_tiles(up, down)
    wanted = passed(filtered_leaky_relu, x.float(), up, down, clamp)
    composed = passed(filtered_leaky_relu, x, up, down, clamp)
    fused = passed(fused_filtered_leaky_relu, x, up, down, clamp)
    for one, other, true in zip(fused, composed, wanted, strict=True):
        assert one.shape == true.shape
        assert 0 < distance(one, true) < 1.5 * distance(other, true) + 1e-4


def test_sides_may_differ_and_tiles_end_within_them(interpreted: None) -> None:
    layer = layer_of(3)
    x = torch.randn(2, 9, 30, 75, generator=torch.Generator().manual_seed(0)).to(torch.float16)
    up, down = layer.plans(x)
    assert down.out_size == (28, 73)
    for one, true in zip(
        passed(fused_filtered_leaky_relu, x.transpose(2, 3).contiguous().transpose(2, 3), up, down, 256.0),
        passed(filtered_leaky_relu, x.float(), up, down, 256.0),
        strict=True,
    ):
        assert distance(one, true) < 0.01


def test_it_can_be_derived_twice(interpreted: None) -> None:
    layer = layer_of(0)
    x = torch.randn(1, 1, 38, 38, generator=torch.Generator().manual_seed(0)).to(torch.float16)
    up, down = layer.plans(x)

    def penalty(bend: Any) -> Tensor:
        given = x.clone().requires_grad_(True)
        (first,) = torch.autograd.grad(bend(given, up, down, 2.5).square().sum(), given, create_graph=True)
        return torch.autograd.grad(first.square().sum(), given)[0].float()

    found, wanted = penalty(fused_filtered_leaky_relu), penalty(filtered_leaky_relu)
    assert wanted.norm() > 0
    assert distance(found, wanted) < 0.02


def test_what_is_not_a_number_stays_none(interpreted: None) -> None:
    layer = layer_of(0)
    x = torch.randn(1, 1, 38, 38, generator=torch.Generator().manual_seed(0)).to(torch.float16)
    x[0, 0, 20, 20] = float("nan")
    wanted = passed(filtered_leaky_relu, x.float(), *layer.plans(x), 2.5)
    found = passed(fused_filtered_leaky_relu, x, *layer.plans(x), 2.5)
    assert wanted[0].isnan().all()
    assert found[0][0, 0, 10:27, 10:27].isnan().any(), "a tile at least"
    assert wanted[1].isfinite().all()
    assert found[1].isfinite().all()


def test_it_keeps_what_came_in_and_nothing_else(interpreted: None) -> None:
    kept: list[Tensor] = []
    x = torch.randn(1, 2, 38, 38).to(torch.float16).requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        fused_filtered_leaky_relu(x, *layer_of(0).plans(x), 2.5)
    assert [tensor.data_ptr() for tensor in kept] == [x.data_ptr()]


def test_what_is_not_fused() -> None:
    x = torch.randn(1, 2, 38, 38)
    up, down = layer_of(0).plans(x)
    assert has_tiles(up, down)
    assert torch.equal(fused_filtered_leaky_relu(x, up, down, 2.5), filtered_leaky_relu(x, up, down, 2.5))
    radial = layer_of(0, radial=True)
    assert not has_tiles(*radial.plans(x[..., :36, :36]))
    padded = plan_resample(
        layer_of(0)._factors[1].of(layer_of(0).down_filter), up.out_size, down=2, padding=(1, 0, 0, 0)
    )
    assert not has_tiles(up, padded)


def network() -> SynthesisNetwork:
    torch.manual_seed(0)
    half = HalfPrecision(4, torch.float16, devices=("cpu",))
    return SynthesisNetwork(8, 16, cbase=64, cmax=4, half=half)


def test_a_network_draws_the_same_with_it(interpreted: None, like_a_card: None) -> None:
    plain, fused = network(), network()
    assert use_fused_filtering(fused, CPU, torch.float16) is None
    layers = [layer for layer in fused.modules() if isinstance(layer, SynthesisLayer)]
    assert [layer.bend is fused_filtered_leaky_relu for layer in layers] == [True] * FUSED_LAYERS + [False]
    ws = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted, found, exact = plain(ws), fused(ws), plain(ws, force_fp32=True)
    assert torch.equal(exact, fused(ws, force_fp32=True))
    assert not torch.equal(found, wanted)
    assert distance(found, exact) < 1.2 * distance(wanted, exact)


def test_what_stands_in_its_way_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = network()
    assert use_fused_filtering(generator, CPU, torch.float16) == "it is for CUDA, and the device is cpu"
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert use_fused_filtering(generator, cuda, torch.float16) == "it needs a card of the Ampere generation or later"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(fused_filtering, "find_spec", lambda name: None)
    assert use_fused_filtering(generator, cuda, torch.float16) == "the package triton is not installed"
    monkeypatch.setattr(fused_filtering, "_missing", lambda device: None)
    nothing = "no layer of this network computes in half precision with filters of one pair of passes"
    assert use_fused_filtering(generator, CPU, torch.float32) == nothing


def test_a_kernel_that_fails_or_errs_is_not_used(monkeypatch: pytest.MonkeyPatch, like_a_card: None) -> None:
    def fails(*given: Any) -> Tensor:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable")

    generator = network()
    monkeypatch.setattr(fused_filtering, "_bend", fails)
    reason = use_fused_filtering(generator, CPU, torch.float16)
    compiler = "Failed to find C compiler. ... Please specify via CC environment variable"
    assert reason == f"Triton fails here (RuntimeError: {compiler})"
    monkeypatch.setattr(fused_filtering, "_bend", lambda x, up, down, *_: x.new_zeros(*x.shape[:2], *down.out_size))
    monkeypatch.setattr(fused_filtering, "_bend_back", lambda of_y, x, *_: torch.zeros_like(x))
    assert use_fused_filtering(generator, CPU, torch.float16) == "Triton's result is off by 100.0% here"
    monkeypatch.setattr(fused_filtering, "_bend", lambda x, *how: filtered_leaky_relu(x.float(), *how).to(x.dtype))
    monkeypatch.setattr(fused_filtering, "_bend_back", lambda of_y, x, *_: torch.full_like(x, float("nan")))
    assert use_fused_filtering(generator, CPU, torch.float16) == "Triton's result is off by nan% here"
    layers = [layer for layer in generator.modules() if isinstance(layer, SynthesisLayer)]
    assert all(layer.bend is filtered_leaky_relu for layer in layers)


def compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The kernels as they are for a card."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    spec = importlib.util.spec_from_file_location(
        "kernels", Path(fused_filtering.__file__).parent / "filtering_kernels.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TILES: dict[str, dict[str, int]] = {
    "bend_kernel": {"stride": 27, "step": 27, "reads": 64, "middle": 64, "writes": 32, "images": 8},
    "bend_back_kernel": {
        "stride": 27, "again_stride": 27, "step": 27, "reads": 64, "reads_again": 64, "middle": 64, "writes": 32,
        "images": 8,
    },
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", TILES)
def test_cards_get_code_for_their_tensor_cores(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: int, dtype: str, tmp_path: Path
) -> None:
    """Compiled without one."""
    triton = pytest.importorskip("triton", exc_type=ImportError)
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel, sizes = getattr(compiled_kernels(monkeypatch), name), TILES[name]
    kinds = {"slope": "fp32", "clamp": "fp32", **dict.fromkeys(("x", "y", "of_x", "of_y"), f"*{dtype}")}
    kinds |= {each: f"*{dtype}" for each in kernel.arg_names if each.endswith(("_left", "_right"))}
    signature = {each: "constexpr" if each in sizes else kinds.get(each, "i32") for each in kernel.arg_names}
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(each),): size for each, size in sizes.items()})
    options = {"num_warps": fused_filtering.WARPS}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert "mma" in compiled.asm["ptx"]
    assert compiled.metadata.shared <= 48 * 1024
