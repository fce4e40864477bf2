"""`tools.generate` with a snapshot in the official layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_trainer.models.gan.generation import seed_latents
from lora_trainer.models.gan.table import GanSize, build_discriminator, build_generator
from tests.models.gan.test_official_pickle import official, official_modules, write
from tools import generate

__all__ = ["official_modules"]  # a fixture


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-r", "creps"])
def test_an_official_snapshot_draws_its_images(cfg: str, tmp_path: Path) -> None:
    size = GanSize(32, cbase=64, cmax=8, c_dim=2)
    network, critic = build_generator(cfg, size, seed=1, dims=(6, 7), map_depth=3), build_discriminator(size, seed=1)
    width = 2 if cfg == "stylegan3-r" else 1
    words = {"z_dim": 6, "w_dim": 7, "c_dim": 2, "img_resolution": 32, "img_channels": 3}
    words |= {"channel_base": 64 * width, "channel_max": 8 * width}
    content = {"G": official(critic, "D"), "D": official(critic, "D"), "G_ema": official(network, "Generator", **words)}
    path = write(tmp_path / "network-snapshot-000200.pkl", content)
    out = tmp_path / "out"
    assert generate.main([str(path), "--seeds", "3", "--class", "1", "--trunc", "0.5", "--output", str(out)]) == 0
    options = {"noise": "const"} if cfg == "stylegan2" else {}
    with torch.no_grad():
        image = network(seed_latents([3], 6), torch.eye(2)[1:], truncation_psi=0.5, **options)[0]
    wanted = (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    found = np.array(Image.open(out / "seed0003.png"))
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
    assert found.std() > 0
