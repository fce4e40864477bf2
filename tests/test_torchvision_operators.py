"""torchvision can be imported whether or not its compiled operators fit this PyTorch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import lora_trainer
from lora_trainer.torchvision_operators import SCHEMAS, declare_torchvision_operators


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("library", ["torchvision", "spandrel"])
def test_importing_the_package_first_is_enough(library: str) -> None:
    done = python(f"import lora_trainer, {library}; print({library}.__name__)")
    assert (done.returncode, done.stdout.strip()) == (0, library), done.stderr


def test_the_package_itself_loads_neither() -> None:
    done = python("import sys, lora_trainer; print({'torch', 'torchvision', 'spandrel'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


def test_declaring_again_changes_nothing() -> None:
    assert lora_trainer.__version__
    declare_torchvision_operators()
    import torchvision

    declare_torchvision_operators()
    assert all(hasattr(torch.ops.torchvision, name) for name in SCHEMAS if name == "nms")
    assert torchvision.ops.nms is not None
