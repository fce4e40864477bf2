"""The choice of attention kernel: the same result, and a sentence when the choice cannot be had."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from lora_trainer.models.attention import use_attention

CPU = torch.device("cpu")


def tiny_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        block_out_channels=(8,),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=12,
        norm_num_groups=4,
    )


def kernels(unet: UNet2DConditionModel) -> set[str]:
    return {type(processor).__name__ for processor in unet.attn_processors.values()}


def test_both_kernels_of_pytorch_compute_the_same() -> None:
    unet, inputs = tiny_unet(), (torch.randn(1, 4, 8, 8), 500, torch.randn(1, 3, 12))

    assert use_attention(unet, "sdpa", CPU) is None
    assert kernels(unet) == {"AttnProcessor2_0"}
    fused = unet(*inputs).sample
    assert use_attention(unet, "none", CPU) is None
    assert kernels(unet) == {"AttnProcessor"}
    torch.testing.assert_close(unet(*inputs).sample, fused, rtol=0, atol=1e-5)


@pytest.mark.parametrize("before", ["sdpa", "none"])
def test_xformers_on_a_cpu_is_pytorchs_attention_and_says_so(before: str) -> None:
    unet = tiny_unet()
    use_attention(unet, before, CPU)

    note = use_attention(unet, "xformers", CPU)
    assert note == "xformers has no attention for cpu; PyTorch's own (sdpa) is used instead"
    assert kernels(unet) == {"AttnProcessor2_0"}


def test_xformers_that_is_not_installed_is_pytorchs_attention_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_trainer.models.attention.find_spec", lambda name: None)
    unet = tiny_unet()

    note = use_attention(unet, "xformers", torch.device("cuda"))
    assert note == "xformers is not installed; PyTorch's own attention (sdpa) is used instead"
    assert kernels(unet) == {"AttnProcessor2_0"}
