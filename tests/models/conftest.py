"""Upscalers at sizes that train in a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from lora_trainer.models.sr_networks import SrNetwork

TINY: dict[str, dict[str, Any]] = {
    "ATD": {"embed_dim": 24, "depths": [2], "num_heads": [2], "window_size": 8, "num_tokens": 8, "reducted_dim": 4},
    "Compact": {"num_feat": 8, "num_conv": 2},
    "CRAFT": {"embed_dim": 12, "depths": [2], "num_heads": [6]},
    "DAT": {"embed_dim": 16, "depth": [2], "num_heads": [2], "split_size": [4, 8]},
    "DCTLSA": {"nf": 10},
    "DITN": {"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1},
    "DRCT": {"embed_dim": 16, "depths": [1], "num_heads": [2], "gc": 8},
    "ESRGAN": {"num_filters": 8, "num_blocks": 1},
    "FDAT": {"embed_dim": 24, "num_heads": 3, "num_groups": 1, "depth_per_group": 2, "mid_dim": 8},
    "GRL": {
        "embed_dim": 16, "depths": [2], "num_heads_window": [2], "num_heads_stripe": [2], "window_size": 8,
        "stripe_size": [16, 16],
    },
    "HAT": {"embed_dim": 24, "depths": [1], "num_heads": [2], "num_feat": 8},
    "MMRealSR": {
        "num_feat": 8, "num_block": 1, "num_grow_ch": 4, "num_feats": [8, 8], "num_blocks": [1, 1],
        "downscales": [2, 1],
    },
    "MoESR": {"dim": 16, "n_blocks": 1, "n_block": 1, "upsample_dim": 8},
    "MoSR": {"n_block": 1, "dim": 16},
    "NAFNet": {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1], "dec_blk_nums": [1]},
    "OmniSR": {"num_feat": 16, "res_num": 1},
    "PLKSR": {"dim": 16, "n_blocks": 1},
    "RCAN": {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 16},
    "RealPLKSR": {"dim": 16, "n_blocks": 1},
    "RGT": {"embed_dim": 16, "depth": [2], "num_heads": [2], "split_size": [4, 8]},
    "SAFMN": {"dim": 8, "n_blocks": 1},
    "SAFMNBCIE": {"dim": 8, "n_blocks": 1, "num_layers": 1},
    "SCUNet": {"config": [1] * 7},
    "SeemoRe": {"num_layers": 1},
    "SPAN": {"feature_channels": 8},
    "SwiftSRGAN": {"num_channels": 8, "num_blocks": 2},
    "Swin2SR": {"embed_dim": 16, "depths": [2], "num_heads": [2]},
    "SwinIR": {"embed_dim": 16, "depths": [2], "num_heads": [2]},
    "UpCunet2x": {},
}  # fmt: skip


@pytest.fixture
def tiny_upscaler() -> Callable[..., SrNetwork]:
    """`tiny_upscaler("span", 2, norm=True)` is a small network with weights away from their initial zeros."""
    from lora_trainer.models.sr_networks import NETWORKS, build_network

    def build(name: str, scale: int, **options: Any) -> SrNetwork:
        torch.manual_seed(scale)
        network = build_network(name, scale, {**TINY[NETWORKS[name][0].network], **options})
        with torch.no_grad():
            for weight in network.module.parameters():
                weight.add_(0.01 * torch.randn_like(weight))
        return network

    return build
