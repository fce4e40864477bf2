"""Arguments of sd-scripts in a preset train as the keys that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

Rows = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def file_of(
    write_preset: Callable[..., Path], train: Callable[..., int], out: Path
) -> Callable[..., tuple[dict[str, bytes], dict[str, str]]]:
    """Train and read the file: tensors and metadata."""

    def trained(**keys: object) -> tuple[dict[str, bytes], dict[str, str]]:
        assert train(write_preset(max_train_steps=2, **keys), "--restart") == 0
        with safe_open(out / "tiny.safetensors", framework="np") as file:
            tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 - no dict
            return tensors, file.metadata()

    return trained


def test_arguments_train_as_their_keys(file_of: Callable[..., tuple[dict[str, bytes], dict[str, str]]]) -> None:
    written, told = file_of(
        noise_offset=0.05, network_dim=2, max_grad_norm=0, text_encoder_lr=0, lr_warmup_steps=1, no_metadata=True
    )
    words = "--noise_offset=0.05 --network_dim 2 --max_grad_norm=0 --network_train_unet_only --lr_warmup_steps 1"
    given, told_more = file_of(additional_parameters=words)
    assert given == written
    assert not any(name.startswith("lora_te") for name in written)
    assert told_more["ss_lr_warmup_steps"] == "1"
    assert {name for name in told if not name.startswith(("modelspec.", "sshs_"))} == {
        "ss_base_model_version", "ss_network_alpha", "ss_network_dim", "ss_network_module", "ss_v2",
    }  # fmt: skip
    assert {name: told_more[name] for name in told} == told


def test_the_rate_rises_over_so_many_steps(
    write_preset: Callable[..., Path], train: Callable[..., int], rows: Rows
) -> None:
    preset = write_preset(max_train_steps=5, lr_scheduler="constant", lr_warmup=0, lr_warmup_steps=4, log_every=1)
    assert train(preset) == 0
    rates = [row["lr/unet"] for row in rows()]
    assert [rate / rates[-1] for rate in rates] == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
