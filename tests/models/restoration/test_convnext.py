"""The encoder has open_clip's names and shapes, and computes what timm's computes."""

from __future__ import annotations

import torch

from lora_trainer.models.restoration.convnext import XXLARGE, ConvNextEncoder, ConvNextSizes, sizes_in

Shapes = dict[str, tuple[int, ...]]


def shapes_of(sizes: ConvNextSizes) -> Shapes:
    with torch.device("meta"):
        encoder = ConvNextEncoder(sizes)
    return {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}


def test_the_largest_has_the_published_names_and_sizes() -> None:
    shapes = shapes_of(XXLARGE)
    assert len(shapes) == 379
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 846_543_744
    assert shapes["trunk.stem.0.weight"] == (384, 3, 4, 4)
    assert shapes["trunk.stem.1.weight"] == (384,)
    assert shapes["trunk.stages.1.downsample.0.bias"] == (384,)
    assert shapes["trunk.stages.1.downsample.1.weight"] == (768, 384, 2, 2)
    assert shapes["trunk.stages.2.blocks.29.conv_dw.weight"] == (1536, 1, 7, 7)
    assert shapes["trunk.stages.2.blocks.29.gamma"] == (1536,)
    assert shapes["trunk.stages.3.blocks.2.mlp.fc1.weight"] == (12288, 3072)
    assert shapes["trunk.head.norm.weight"] == (3072,)
    assert shapes["head.proj.weight"] == (1024, 3072)
    assert not [name for name in shapes if name.startswith("trunk.stages.0.downsample") or name == "head.proj.bias"]


def test_sizes_follow_from_the_names_of_a_file() -> None:
    for sizes in (XXLARGE, ConvNextSizes((3, 3, 27, 3), (192, 384, 768, 1536), 768, 1536)):
        assert sizes_in(shapes_of(sizes)) == sizes


def test_other_networks_have_no_sizes() -> None:
    shapes = shapes_of(ConvNextSizes((1, 1, 1, 1), (4, 8, 8, 8), 4))
    assert sizes_in({"trunk.blocks.0.attn.qkv.weight": (3, 1)}) is None
    assert sizes_in({name: shape for name, shape in shapes.items() if not name.startswith("head.")}) is None
    assert sizes_in({name: shape for name, shape in shapes.items() if ".stages.3." not in name}) is None


def test_only_the_largest_has_its_own_epsilon() -> None:
    assert XXLARGE.norm_eps == 1e-5
    assert ConvNextSizes((1, 1, 1, 1), (128, 8, 8, 8), 4).norm_eps == 1e-6


def test_an_mlp_makes_the_embedding_where_the_file_has_one() -> None:
    encoder = ConvNextEncoder(ConvNextSizes((1, 1, 1, 1), (4, 4, 8, 8), 6, 10))
    assert {name: tuple(value.shape) for name, value in encoder.head.state_dict().items()} == {
        "mlp.fc1.weight": (10, 8),
        "mlp.fc1.bias": (10,),
        "mlp.fc2.weight": (6, 10),
    }
    assert [tuple(seen.shape) for seen in encoder(torch.rand(2, 3, 64, 32))] == [
        (2, 4, 16, 8),
        (2, 4, 8, 4),
        (2, 8, 4, 2),
        (2, 6),
    ]
