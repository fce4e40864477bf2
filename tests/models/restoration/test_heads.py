"""The heads have the published sizes, judge float32, and are calm before their first step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lora_trainer.models.restoration.heads import Blur, FeatureHeads, build_heads


@pytest.fixture
def heads() -> FeatureHeads:
    return build_heads((4, 6, 8, 10), seed=3, hidden=16)


def features(places: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, 4, places, places), (2, 6, places // 2, places // 2), (2, 8, places // 4, places // 4), (2, 10)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def weight(heads: FeatureHeads, head: int, layer: int) -> Tensor:
    found: Tensor = heads.heads[head][layer].weight  # type: ignore[index]
    return found


def test_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        heads = FeatureHeads((384, 768, 1536, 1024))
    assert sum(parameter.numel() for parameter in heads.parameters()) == 12_914_692


def test_one_place_of_a_map_spreads_over_the_blur() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 3] = 64
    wide, narrow = Blur(border=2)(image), Blur(border=1)(image)
    assert (tuple(wide.shape), tuple(narrow.shape)) == ((1, 1, 9, 9), (1, 1, 7, 7))
    spread = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1]))
    assert torch.equal(wide[0, 0, 2:6, 2:6], spread)
    assert torch.equal(narrow[0, 0, 1:5, 1:5], spread)
    assert float(wide.sum()) == 64


def test_each_head_is_blur_convolution_blur_convolution(heads: FeatureHeads) -> None:
    seen = features()
    heads.eval()
    x = F.conv2d(Blur(2)(seen[0]), weight(heads, 0, 1), heads.heads[0][1].bias, stride=2)  # type: ignore[index]
    x = F.conv2d(Blur(1)(F.leaky_relu(x, 0.2)), weight(heads, 0, 4), heads.heads[0][4].bias, stride=2)  # type: ignore[index]
    logits = heads(seen)
    torch.testing.assert_close(logits[0], x)
    assert [tuple(each.shape) for each in logits] == [(2, 1, 4, 4), (2, 1, 2, 2), (2, 1, 1, 1), (2, 1)]
    assert tuple(heads(features(128))[0].shape) == (2, 1, 32, 32)


def test_weights_have_the_spectral_norm_one_before_any_training(heads: FeatureHeads) -> None:
    heads.eval()
    for head, layers in enumerate([(1, 4)] * 3 + [(0, 2)]):
        for layer in layers:
            largest = torch.linalg.matrix_norm(weight(heads, head, layer).flatten(1), 2)
            assert float(largest) == pytest.approx(1, abs=0.03)
    before = [each.detach() for each in heads(features())]
    heads.train()
    heads(features())
    heads.eval()
    after = heads(features())
    for first, second in zip(before, after, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0.02)


def test_only_refining_moves_the_norms_vectors(heads: FeatureHeads) -> None:
    def vectors() -> list[Tensor]:
        return [buffer.clone() for name, buffer in heads.named_buffers() if name.endswith("_u")]

    before = vectors()
    assert not heads.training
    heads(features())
    assert all(torch.equal(a, b) for a, b in zip(before, vectors(), strict=True))
    heads.refine()
    assert all(not torch.equal(a, b) for a, b in zip(before, vectors(), strict=True) if a.numel() > 1)
    assert not heads.training


def test_the_state_brings_back_the_same_logits(heads: FeatureHeads) -> None:
    heads(features())
    other = build_heads((4, 6, 8, 10), seed=9, hidden=16)
    assert not torch.equal(other.eval()(features())[0], heads.eval()(features())[0])
    other.load_state_dict(heads.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(other(features()), heads(features()), strict=True))
    assert not [name for name in heads.state_dict() if name.endswith("kernel")]


def test_weights_follow_from_the_seed_alone(heads: FeatureHeads) -> None:
    torch.manual_seed(77)
    state = torch.get_rng_state()
    again = build_heads((4, 6, 8, 10), seed=3, hidden=16)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), heads.state_dict().values(), strict=True))


def test_autocast_and_half_precision_do_not_reach_the_heads(heads: FeatureHeads) -> None:
    heads.eval()
    plain = heads([seen.bfloat16().float() for seen in features()])
    with torch.autocast("cpu", torch.bfloat16):
        cast = heads([seen.bfloat16() for seen in features()])
    assert {each.dtype for each in cast} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_pictures_of_64_pixels_are_the_smallest(heads: FeatureHeads) -> None:
    assert tuple(heads(features(16))[2].shape) == (2, 1, 1, 1)
    with pytest.raises(RuntimeError):
        heads(features(12))
