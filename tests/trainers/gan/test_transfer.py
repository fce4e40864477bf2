"""A training that starts from a snapshot, official ones too: which network becomes what."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from lora_trainer.errors import Refusal
from lora_trainer.models.gan.snapshot import save_snapshot
from lora_trainer.models.gan.table import GanSize, build_discriminator, build_generator
from lora_trainer.trainers.gan.average import HalfLifeAverage
from lora_trainer.trainers.gan.transfer import start_from
from tests.models.gan.test_official_pickle import official, official_modules, write

__all__ = ["official_modules"]  # so that pickle writes the official names

SIZE = GanSize(16, cbase=64, cmax=8)


def average_of(network: torch.nn.Module) -> HalfLifeAverage:
    return HalfLifeAverage(network, 8, lambda step: 1000.0)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("lora_trainer"), "propagate", True)
    caplog.set_level(logging.INFO, "lora_trainer")
    return caplog


def test_an_official_snapshot_gives_all_three_networks(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    live, averaged = (build_generator("stylegan2", SIZE, seed=seed, map_depth=1) for seed in (1, 2))
    judge = build_discriminator(SIZE, seed=3)
    content = {
        "G": official(live, "Generator", channel_base=64, channel_max=8, img_resolution=16),
        "D": official(judge, "Discriminator"),
        "G_ema": official(averaged, "Generator", channel_base=64, channel_max=8, img_resolution=16),
        "augment_pipe": None,
        "training_set_kwargs": {},
    }
    path = write(tmp_path / "network-snapshot-000200.pkl", content)
    generator, discriminator = (
        build_generator("stylegan2", SIZE, seed=4, map_depth=1),
        build_discriminator(SIZE, seed=5),
    )
    ema = start_from(path, "stylegan2", generator, discriminator, lambda: average_of(generator))
    for network, source in ((generator, live), (discriminator, judge)):
        for name, tensor in source.state_dict().items():
            assert torch.equal(network.state_dict()[name], tensor), name
    with ema.swapped():
        for name, weight in averaged.named_parameters():
            assert torch.equal(generator.get_parameter(name), weight), name
    count = len(live.state_dict())
    assert f"{path}: G: {count} tensors taken, 0 missing, 0 of another shape" in said.text
    assert f"{path}: D: " in said.text


def test_what_a_snapshot_lacks_is_told(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    averaged = build_generator("stylegan2", SIZE, seed=2, map_depth=1)
    tensors = averaged.state_dict()
    del tensors["mapping.w_avg"]
    path = tmp_path / "only.safetensors"
    save_snapshot(path, "stylegan2", {"G_ema": tensors}, {})
    generator, discriminator = (
        build_generator("stylegan2", SIZE, seed=4, map_depth=1),
        build_discriminator(SIZE, seed=5),
    )
    before = discriminator.b4.out.weight.clone()
    start_from(path, "stylegan2", generator, discriminator, lambda: average_of(generator))
    assert torch.equal(generator.mapping.fc0.weight, averaged.mapping.fc0.weight)
    assert torch.equal(discriminator.b4.out.weight, before)
    assert "1 missing, 0 of another shape (mapping.w_avg)" in said.text
    assert "only.safetensors: has no D: the discriminator starts anew" in said.text
    save_snapshot(path, "stylegan2", {"D": build_discriminator(SIZE).state_dict()}, {})
    with pytest.raises(Refusal, match="has no generator; give one with G or G_ema"):
        start_from(path, "stylegan2", generator, discriminator, lambda: average_of(generator))
    with pytest.raises(
        Refusal, match="is of stylegan2, and the preset says cfg creps; write stylegan2, or give another"
    ):
        start_from(path, "creps", generator, discriminator, lambda: average_of(generator))
