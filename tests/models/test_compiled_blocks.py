"""Compiled blocks: the same numbers, names and copies, and eager again after a failure."""

from __future__ import annotations

import copy
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.compilers import nop

from lora_trainer.models.adapters.layer import Dropouts, LayerPlan
from lora_trainer.models.adapters.network import add_adapter, fuse_layers
from lora_trainer.models.compiled_blocks import CACHE, compile_blocks
from lora_trainer.models.recomputation import recompute_feed_forwards
from lora_trainer.user_cache import CACHE_FOLDER
from tests.models.adapters.test_lora import names_of, tiny_unet, unet_inputs

BLOCKS = 4 + 8  # transformer blocks and resnets of the tiny UNet


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "compiled"))
    torch._dynamo.reset()


def with_lora() -> Any:
    unet: Any = tiny_unet()
    add_adapter(unet, {path: LayerPlan(name, "lora", 2, 2.0) for path, name in names_of(unet).items()}, Dropouts(), 1)
    fuse_layers(unet)
    for name, weight in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(3))
    return unet.train()


def gradients(unet: Any) -> list[Tensor]:
    unet.zero_grad()
    unet(*unet_inputs()).sample.pow(2).sum().backward()
    return [weight.grad.clone() for weight in unet.parameters() if weight.grad is not None]


def test_it_learns_the_same_and_keeps_its_names() -> None:
    """PyTorch's own tracing, without a compiler behind it, which would take minutes."""
    unet = with_lora()
    names, plain = list(unet.state_dict()), gradients(unet)
    assert compile_blocks(unet, backend="aot_eager") == BLOCKS
    for ours, wanted in zip(gradients(unet), plain, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-6)
    assert all(layer._compiled_call_impl is not None for layer in unet.modules() if type(layer).__name__ in BLOCK_NAMES)
    assert list(unet.state_dict()) == names
    assert all(layer._compiled_call_impl is None for layer in copy.deepcopy(unet).modules())


BLOCK_NAMES = ("BasicTransformerBlock", "ResnetBlock2D")


@pytest.mark.slow
@pytest.mark.parametrize("rung", ["geglu", "feed_forward", "everything"])
def test_it_goes_with_recomputation(rung: Any) -> None:
    unet = with_lora()
    plain = gradients(unet)
    recompute_feed_forwards(unet, rung)
    if rung == "everything":
        unet.enable_gradient_checkpointing()
    compile_blocks(unet, backend="aot_eager")
    for ours, wanted in zip(gradients(unet), plain, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-6)


def broken(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no compiler here\nand more lines")


@pytest.mark.parametrize(
    "backend", [broken, aot_autograd(fw_compiler=nop, bw_compiler=broken)], ids=["all", "backward"]
)
def test_a_compiler_that_fails_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, backend: Any
) -> None:
    monkeypatch.setattr(logging.getLogger("lora_trainer"), "propagate", True)
    unet = with_lora()
    plain = gradients(unet)
    compile_blocks(unet, backend=backend)
    for ours, wanted in zip(gradients(unet), plain, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=0)
    told = [record.getMessage() for record in caplog.records if "torch_compile" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("torch_compile: going on without, as BackendCompilerFailed: ")
    assert "\n" not in told[0]


def test_too_little_memory_is_no_failure_of_the_compiler() -> None:
    unet = with_lora()
    compile_blocks(unet, backend="eager")
    block = next(layer for layer in unet.modules() if type(layer).__name__ == "ResnetBlock2D")

    def too_large(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    block._compiled_call_impl.compiled = too_large
    with pytest.raises(torch.OutOfMemoryError):
        unet(*unet_inputs())
    assert block._compiled_call_impl is not None


def test_the_cache_has_a_place_that_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    monkeypatch.delenv(CACHE)
    monkeypatch.setenv(CACHE_FOLDER, str(tmp_path))
    assert not cache_dir().startswith(str(tmp_path))  # which writes its place into the variable
    compile_blocks(tiny_unet(), backend="eager")
    assert os.environ[CACHE] == cache_dir() == str(tmp_path / "compiled")
    monkeypatch.setenv(CACHE, str(tmp_path / "elsewhere"))
    compile_blocks(tiny_unet(), backend="eager")
    assert os.environ[CACHE] == str(tmp_path / "elsewhere")
