"""What a layer of a LoRA file does to a weight is what lycoris' own layer does to its output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from torch import Tensor, nn

from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_delta import changed_bias, changed_weight, is_its_own, own_change, without_tucker
from lora_trainer.models.adapter_file import FileLayer
from lora_trainer.models.adapter_names import kind_of_layer

BASES: dict[str, Any] = {
    "linear": lambda: nn.Linear(12, 16),
    "1x1": lambda: nn.Conv2d(12, 16, 1),
    "3x3": lambda: nn.Conv2d(12, 16, 3, padding=1),
}
RANKED = {"lora_dim": 4, "alpha": 3.0}
KINDS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "lora": (LoConModule, RANKED, "lora"),
    "lora tucker": (LoConModule, {**RANKED, "use_tucker": True}, "lora"),
    "dora": (LoConModule, {**RANKED, "weight_decompose": True}, "lora"),
    "dora by input": (LoConModule, {**RANKED, "weight_decompose": True, "wd_on_out": False}, "lora"),
    "loha": (LohaModule, RANKED, "loha"),
    "loha tucker": (LohaModule, {**RANKED, "use_tucker": True}, "loha"),
    "loha dora": (LohaModule, {**RANKED, "weight_decompose": True}, "loha"),
    "lokr": (LokrModule, {"lora_dim": 1, "alpha": 0.5, "factor": 2}, "lokr"),
    "lokr tucker": (LokrModule, {"lora_dim": 1, "alpha": 0.5, "factor": 2, "use_tucker": True}, "lokr"),
    "lokr unbalanced": (
        LokrModule,
        {"lora_dim": 1, "alpha": 0.5, "factor": 4, "unbalanced_factorization": True},
        "lokr",
    ),
    "lokr full": (LokrModule, {"lora_dim": 9, "alpha": 1.0, "full_matrix": True}, "lokr"),
    "lokr dora": (LokrModule, {"lora_dim": 1, "alpha": 0.5, "factor": 2, "weight_decompose": True}, "lokr"),
    "glora": (GLoRAModule, RANKED, "glora"),
    "ia3": (IA3Module, {"train_on_input": False}, "ia3"),
    "ia3 on input": (IA3Module, {"train_on_input": True}, "ia3"),
    "oft": (DiagOFTModule, {"lora_dim": 4}, "oft"),
    "oft with constraint": (DiagOFTModule, {"lora_dim": 4, "constraint": 0.01, "rescaled": True}, "oft"),
    "boft": (ButterflyOFTModule, {"lora_dim": 4}, "boft"),
    "boft rescaled": (ButterflyOFTModule, {"lora_dim": 4, "rescaled": True}, "boft"),
    "full": (FullModule, {}, "full"),
}


def trained(kind: str, base: nn.Module) -> tuple[Any, FileLayer]:
    """lycoris' layer with random weights, and what a file holds of it."""
    torch.manual_seed(1)
    algorithm, options, expected = KINDS[kind]
    module = algorithm("x", base, 1.0, **options)
    if kind == "full":
        module.apply_to()  # a file is written of a module that is in use; before, its weights are the difference itself
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    tensors = {ending: tensor.detach().clone() for ending, tensor in module.state_dict().items()}
    found = kind_of_layer(tensors, {ending: tuple(tensor.shape) for ending, tensor in tensors.items()})
    assert found == expected
    return module, FileLayer(found, tensors)


def inputs(base: nn.Module) -> Tensor:
    return torch.randn(2, 12, 5, 5) if isinstance(base, nn.Conv2d) else torch.randn(2, 12)


def output(base: nn.Module, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    if isinstance(base, nn.Conv2d):
        return nn.functional.conv2d(x, weight, bias, padding=base.padding)
    return nn.functional.linear(x, weight, bias)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_changed_weight_does_what_lycoris_layer_does(kind: str, base: str) -> None:
    torch.manual_seed(0)
    layer = BASES[base]()
    weight, bias, x = layer.weight.clone(), layer.bias.clone(), inputs(layer)
    before = layer(x)
    module, found = trained(kind, layer)
    expected = module(x)
    assert (expected - before).abs().max() > 0.05  # so that a change that is not there would be seen

    ours = output(layer, changed_weight("x", found, weight, 1.0), changed_bias("x", found, bias, 1.0), x)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr", "glora", "ia3", "boft", "full"])
@torch.no_grad()
def test_half_the_strength_is_lycoris_multiplier(kind: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 16)
    weight, bias, x = layer.weight.clone(), layer.bias.clone(), inputs(layer)
    module, found = trained(kind, layer)
    module.multiplier = 0.5
    ours = output(layer, changed_weight("x", found, weight, 0.5), changed_bias("x", found, bias, 0.5), x)
    torch.testing.assert_close(ours, module(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_norms_change_weight_and_bias() -> None:
    for base in (nn.LayerNorm(16), nn.GroupNorm(4, 16)):
        module = NormModule("x", base)
        module.w_norm.copy_(torch.randn(16))
        module.b_norm.copy_(torch.randn(16))
        found = FileLayer("norm", dict(module.state_dict()))
        assert torch.equal(changed_weight("x", found, base.weight, 0.5), base.weight + 0.5 * module.w_norm)
        assert torch.equal(changed_bias("x", found, base.bias, 2.0), base.bias + 2 * module.b_norm)


@pytest.mark.parametrize("kind", ["lora", "dora", "glora", "ia3", "oft"])
@torch.no_grad()
def test_a_linear_file_fits_a_1x1_convolution(kind: str) -> None:
    linear = nn.Linear(12, 16)
    _, found = trained(kind, linear)
    flat = changed_weight("x", found, linear.weight, 1.0)
    wide = changed_weight("x", found, linear.weight[:, :, None, None], 1.0)
    torch.testing.assert_close(wide, flat[:, :, None, None])


@pytest.mark.parametrize("kind", ["lora", "lokr", "glora", "ia3", "oft", "boft", "full"])
def test_another_size_is_refused_with_the_layers_name(kind: str) -> None:
    _, found = trained(kind, nn.Linear(12, 16))
    with pytest.raises(Refusal, match=r"^lora_unet_x: .*use files of the same family"):
        changed_weight("lora_unet_x", found, torch.zeros(20, 24), 1.0)


@torch.no_grad()
def test_a_tucker_core_goes_into_the_kernel_without_loss() -> None:
    _, found = trained("lora tucker", nn.Conv2d(12, 16, 3))
    plain = without_tucker(found)
    assert sorted(plain.tensors) == ["alpha", "lora_down.weight", "lora_up.weight"]
    assert plain.tensors["lora_down.weight"].shape == (4, 12, 3, 3)
    torch.testing.assert_close(own_change(plain), own_change(found))
    assert (found.kernel, plain.kernel) == ((3, 3), (3, 3))


def test_which_changes_can_be_added() -> None:
    own = {kind for kind in KINDS if is_its_own(trained(kind, nn.Linear(12, 16))[1])}
    assert own == {
        "lora", "lora tucker", "loha", "loha tucker", "lokr", "lokr tucker", "lokr unbalanced", "lokr full", "full",
    }  # fmt: skip


def test_without_alpha_the_scale_is_one() -> None:
    layer = FileLayer("lora", {"lora_down.weight": torch.ones(2, 3), "lora_up.weight": torch.ones(4, 2)})
    assert torch.equal(own_change(layer), torch.full((4, 3), 2.0))
    assert (layer.rank, layer.alpha, layer.scale) == (2, None, 1.0)
