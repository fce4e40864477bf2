"""What all tests share: tiny base models, small photographs, and a preset that trains on them in seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # on tiny models more threads are ten times slower
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

import lora_trainer  # noqa: F401 - lets torchvision be imported beside a CPU-only PyTorch

REPOSITORY = Path(__file__).parents[1]
PHOTOS = REPOSITORY / "presets" / "photos" / "2_photo"
PRESETS = sorted(
    path
    for path in (REPOSITORY / "presets").rglob("*.json")
    if not path.name.endswith((".model.json", ".prompts.json")) and "drawings/base/" not in path.as_posix()
)

TinyPath = Callable[..., Path]
WritePreset = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="write the numbers in tests/golden anew")


@pytest.fixture(scope="session", autouse=True)
def caches_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests leave nothing in the person's cache folder; programs that they start inherit it."""
    os.environ["LORA_TRAINER_CACHE"] = str(tmp_path_factory.mktemp("caches"))


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> TinyPath:
    """`tiny_path("sdxl")` is a diffusers folder, `tiny_path("sdxl", ".safetensors")` and ".ckpt" are files."""
    from lora_trainer.models.tiny_models import make_tiny_model

    root = tmp_path_factory.mktemp("tiny models ü")

    def find(kind: str, suffix: str = "") -> Path:
        path = root / f"{kind}{suffix}"
        if not path.exists():
            make_tiny_model(kind, path, single_file=bool(suffix))
        return path

    return find


@pytest.fixture
def random_lora(tmp_path: Path, tiny_path: Callable[..., Path]) -> Callable[..., Path]:
    """`random_lora("sdxl", rank=4, alpha=2, conv=True, name="a")` writes a LoRA for a tiny base."""
    import torch

    from lora_trainer.models.adapter_facts import base_facts, network_facts
    from lora_trainer.models.adapter_file import FileLayer, write_adapter_file
    from lora_trainer.models.adapter_merge import lora_tensors
    from lora_trainer.models.adapter_names import kohya_layers
    from lora_trainer.models.base_weights import open_base

    def write(
        kind: str, *, rank: int = 4, alpha: float = 2, conv: bool = False, name: str = "lora", seed: int = 0
    ) -> Path:
        draws = torch.Generator().manual_seed(seed)
        layers = {}
        with open_base(tiny_path(kind, ".safetensors")) as base:
            for place, layer in kohya_layers(kind, base.unet_config).items():
                shape = base.shape(place) if place in base.slots else ()
                inner = place.part == "unet" and ".attentions." not in place.path
                if len(shape) < 2 or place.path == "text_projection" or (inner and not (conv and "s." in place.path)):
                    continue
                up, down = (
                    torch.randn(size, generator=draws).mul_(0.1)
                    for size in ((shape[0], rank), (rank, torch.Size(shape[1:]).numel()))
                )
                layers[layer] = FileLayer("lora", lora_tensors(up, down, float(alpha), shape[2:]))
        path = tmp_path / f"{name} ü.safetensors"
        facts = {**base_facts(kind), **network_facts(layers), "ss_output_name": name, "ss_training_comment": "None"}
        write_adapter_file(path, layers, torch.float32, facts)
        return path

    return write


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photographs of two shapes, twice an epoch."""
    folder = tmp_path / "bilder ä" / "2_photo"
    folder.mkdir(parents=True)
    for name in ("cat", "coffee", "coins", "galaxies"):
        for suffix in (".jpg", ".txt"):
            shutil.copy(PHOTOS / f"{name}{suffix}", folder)
    return folder.parent


@pytest.fixture
def write_preset(tmp_path: Path, photos: Path, tiny_path: TinyPath) -> WritePreset:
    """`write_preset(kind="sdxl", suffix=".safetensors", key=value, ...)` writes a quick preset and gives its path."""

    def write(kind: str = "sdxl", suffix: str = ".safetensors", **keys: Any) -> Path:
        preset: dict[str, Any] = {
            "pretrained_model_name_or_path": str(tiny_path(kind, suffix)),
            "sdxl": kind.startswith("sdxl"),
            "v2": kind.startswith("sd21"),
            "v_parameterization": kind.endswith("-v"),
            "train_data_dir": str(photos),
            "output_dir": str(tmp_path / "out put"),
            "output_name": "tiny",
            "mixed_precision": "no",
            "save_precision": "float",
            "xformers": "sdpa",
            "max_resolution": "96,96",
            "bucket_reso_steps": 32,
            "network_dim": 4,
            "network_alpha": 4,
            "optimizer": "AdamW",
            "unet_lr": 0.001,
            "text_encoder_lr": 0.0005,
            "lr_scheduler": "constant",
            "lr_warmup": 0,
            "train_batch_size": 2,
            "epoch": 2,
            "save_every_n_epochs": 0,
            "log_every": 1,
            "log_with": "none",
            "seed": 7,
            **keys,
        }
        path = tmp_path / "preset.json"
        path.write_text(json.dumps(preset), encoding="utf-8")
        return path

    return write


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The output folder of `write_preset`."""
    return tmp_path / "out put"


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command line in this process: `train(preset, "--set", "epoch=1")` gives the exit status.

    Without the report at the end, whose curves take a second; test_reports.py is about it.
    """
    from lora_trainer.engine.signals import StopRequest

    monkeypatch.setattr("lora_trainer.trainers.run.leave_report", lambda folder: None)
    monkeypatch.setattr(StopRequest, "install", lambda self: None)  # pytest needs its own Ctrl-C

    def run(preset: Path, *arguments: str) -> int:
        from lora_trainer.__main__ import main

        return main(["--preset", str(preset), *arguments])

    return run


@pytest.fixture
def start() -> Callable[..., subprocess.Popen[str]]:
    """Start the command line as a process of its own."""

    def popen(preset: Path, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lora_trainer", "--preset", str(preset), *arguments]
        return subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )

    return popen


@pytest.fixture
def rows(out: Path) -> Callable[[], list[dict[str, Any]]]:
    """The lines of metrics.jsonl."""

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    return read
