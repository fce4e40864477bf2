"""Imports without the collector and without torch's compiler."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lora_trainer.quick_imports import quick_imports


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with quick_imports():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_asks_for_a_compiled_function_gets_it_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compiled_now(function: object, **options: object) -> object:
        asked.append((function, options))
        return function

    monkeypatch.setattr(torch, "compile", compiled_now)

    def double(x: int) -> int:
        """Twice x."""
        return 2 * x

    with quick_imports():
        plain = torch.compile(model=double)
        decorated = torch.compile(dynamic=False)(double)
    assert torch.compile is compiled_now
    assert (asked, plain.__doc__, decorated.__name__) == ([], "Twice x.", "double")
    assert [decorated(3), decorated(4), plain(x=5)] == [6, 8, 10]
    assert asked == [(double, {"dynamic": False}), (double, {})]


def test_an_import_that_fails_leaves_torch_as_it_was() -> None:
    before = torch.compile
    with pytest.raises(ModuleNotFoundError), quick_imports():
        import no_such_module_at_all  # type: ignore[import-not-found]  # noqa: F401
    assert torch.compile is before


def test_an_8_bit_optimizer_steps_without_the_compiler() -> None:
    """Which bitsandbytes has torch load; it is not needed, but would take longer than all else of it."""
    code = """
import sys
import torch
from lora_trainer.engine.optimizers import OPTIMIZERS
kind = OPTIMIZERS["AdamW8bit"].find("AdamW8bit")
weight = torch.nn.Parameter(torch.ones(8192))
weight.grad = torch.ones(8192)
kind([weight], lr=0.5).step()
print(float(weight[0]), "torch._inductor.compile_fx" in sys.modules)
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    value, loaded = done.stdout.split()
    assert float(value) == pytest.approx(0.5, abs=0.01)
    assert loaded == "False"
