"""LyCORIS' layers: what a file of each kind means by the formulas of web UIs is what the layer does in training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_trainer.errors import Refusal
from lora_trainer.models.adapters.layer import Dropouts, LayerPlan
from lora_trainer.models.adapters.network import (
    adapter_disabled,
    adapter_layers,
    adapter_tensors,
    add_adapter,
    limit_norms,
    load_adapter,
)

BASES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(24, 16),
    "conv3": lambda: nn.Conv2d(8, 16, 3, padding=1, stride=2),
    "conv1": lambda: nn.Conv2d(8, 16, 1),
}
File = Mapping[str, Tensor]


def base_of(kind: str, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(BASES[kind]()).to(dtype)


def inputs(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn((2, 5, 24) if kind == "linear" else (2, 8, 6, 6), generator=generator)


def adapted(
    kind: str, algo: str, dropouts: Dropouts | None = None, dtype: torch.dtype = torch.float32, **options: Any
) -> nn.Sequential:
    """A model of one layer with an adapter whose numbers are all away from their beginning."""
    model = base_of(kind, dtype)
    plan = LayerPlan("lora_unet_x", algo, 4, 2.0, options)
    assert add_adapter(model, {"0": plan}, dropouts or Dropouts(), seed=7) == {}
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += torch.randn(weight.shape, generator=generator) * 0.3
    return model


def product(up: Tensor, down: Tensor, mid: Tensor | None = None) -> Tensor:
    if mid is None:
        return up.flatten(1) @ down.flatten(1)
    return torch.einsum("abhw,oa,bi->oihw", mid, up.flatten(1), down.flatten(1)).flatten(1)


def of_lora(file: File, weight: Tensor) -> Tensor:
    scale = file["alpha"] / file["lora_down.weight"].shape[0]
    return product(file["lora_up.weight"], file["lora_down.weight"], file.get("lora_mid.weight")) * scale


def of_loha(file: File, weight: Tensor) -> Tensor:
    rank = file["hada_w1_b"].shape[0]
    one, two = (
        torch.einsum("abhw,ao,bi->oihw", file[f"hada_t{n}"], file[f"hada_w{n}_a"], file[f"hada_w{n}_b"]).flatten(1)
        if f"hada_t{n}" in file
        else file[f"hada_w{n}_a"] @ file[f"hada_w{n}_b"]
        for n in (1, 2)
    )
    return one * two * file["alpha"] / rank


def of_lokr(file: File, weight: Tensor) -> Tensor:
    rank = None
    if "lokr_w1" in file:
        one = file["lokr_w1"]
    else:
        one, rank = file["lokr_w1_a"] @ file["lokr_w1_b"], file["lokr_w1_b"].shape[0]
    if "lokr_w2" in file:
        two = file["lokr_w2"]
    elif "lokr_t2" in file:
        rank = file["lokr_w2_b"].shape[0]
        two = torch.einsum("abhw,ao,bi->oihw", file["lokr_t2"], file["lokr_w2_a"], file["lokr_w2_b"])
    else:
        rank = file["lokr_w2_b"].shape[0]
        two = (file["lokr_w2_a"] @ file["lokr_w2_b"]).view(file["lokr_w2_a"].shape[0], -1, *weight.shape[2:])
    one = one.view(*one.shape, *[1] * (two.dim() - 2))
    return (torch.kron(one, two) * (file["alpha"] / rank if rank else 1.0)).flatten(1)


def of_glora(file: File, weight: Tensor) -> Tensor:
    a1, a2, b1, b2 = (file[f"{name}.weight"].flatten(1) for name in ("a1", "a2", "b1", "b2"))
    through = torch.einsum("oi...,ij->oj...", weight, a1 @ a2).flatten(1)
    return (through + b1 @ b2) * file["alpha"] / file["a2.weight"].shape[0]


def of_ia3(file: File, weight: Tensor) -> Tensor:
    factor = file["weight"].flatten()
    shape = (1, -1) if bool(file["on_input"]) else (-1, 1)
    return (weight * factor.view(*shape, *[1] * (weight.dim() - 2))).flatten(1)


def of_full(file: File, weight: Tensor) -> Tensor:
    return file["diff"].flatten(1)


def cayley(skew: Tensor) -> Tensor:
    eye = torch.eye(skew.shape[-1], dtype=skew.dtype)
    skew = skew - skew.transpose(-1, -2)
    return (eye + skew) @ torch.linalg.inv(eye - skew)


def of_oft(file: File, weight: Tensor) -> Tensor:
    rotations = cayley(file["oft_blocks"].double())
    blocks, size = rotations.shape[:2]
    rows = weight.double().view(blocks, size, -1)
    turned = torch.einsum("knm,kni->kmi", rotations, rows).reshape(weight.shape[0], -1)
    if "rescale" in file:
        turned = turned * file["rescale"].flatten(1)
    return turned - weight.double().flatten(1)


def dora(change: Callable[[File, Tensor], Tensor]) -> Callable[[File, Tensor], Tensor]:
    """Liu et al. 2024: direction of W + change, with a trained length for each output."""

    def result(file: File, weight: Tensor) -> Tensor:
        moved = weight.flatten(1) + change(file, weight)
        return moved / moved.norm(dim=1, keepdim=True) * file["dora_scale"].flatten(1) - weight.flatten(1)

    return result


CASES: list[tuple[str, dict[str, Any], Callable[[File, Tensor], Tensor]]] = [
    ("locon", {}, of_lora),
    ("locon", {"use_tucker": True}, of_lora),
    ("locon", {"use_scalar": True}, of_lora),
    ("locon", {"bypass_mode": True}, of_lora),
    ("locon", {"weight_decompose": True}, dora(of_lora)),
    ("loha", {}, of_loha),
    ("loha", {"use_tucker": True}, of_loha),
    ("loha", {"use_scalar": True}, of_loha),
    ("loha", {"bypass_mode": True}, of_loha),
    ("loha", {"weight_decompose": True}, dora(of_loha)),
    ("lokr", {}, of_lokr),
    ("lokr", {"lora_dim": 1}, of_lokr),
    ("lokr", {"lora_dim": 1, "factor": 2, "decompose_both": True}, of_lokr),
    ("lokr", {"lora_dim": 1, "factor": 2, "use_tucker": True}, of_lokr),
    ("lokr", {"lora_dim": 1, "use_scalar": True}, of_lokr),
    ("lokr", {"lora_dim": 1, "bypass_mode": True}, of_lokr),
    ("lokr", {"lora_dim": 1, "full_matrix": True}, of_lokr),
    ("lokr", {"lora_dim": 1, "weight_decompose": True}, dora(of_lokr)),
    ("glora", {}, of_glora),
    ("glora", {"use_scalar": True}, of_glora),
    ("ia3", {"train_on_input": True}, of_ia3),
    ("ia3", {"train_on_input": False}, of_ia3),
    ("full", {}, of_full),
    ("diag-oft", {}, of_oft),
    ("diag-oft", {"rescaled": True}, of_oft),
    ("dylora", {"block_size": 2}, of_lora),
]
IDS = [f"{algo} {' '.join(options)}".strip() for algo, options, _ in CASES]


def changed(model: nn.Sequential, kind: str, change: Tensor, bias: Tensor | None = None) -> Tensor:
    """The base with the change added to its weight."""
    base = base_of(kind)[0]
    base.weight.data += change.view_as(base.weight).float()
    if bias is not None:
        base.bias.data += bias
    return base(inputs(kind))


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize(("algo", "options", "formula"), CASES, ids=IDS)
def test_a_files_formula_is_what_the_layer_does(
    kind: str, algo: str, options: dict[str, Any], formula: Callable[[File, Tensor], Tensor]
) -> None:
    model = adapted(kind, algo, **options).eval()
    file = {name: tensor.clone() for name, tensor in adapter_tensors(model)["0"].items()}
    weight = base_of(kind)[0].weight.data
    expected = changed(model, kind, formula(file, weight), file.get("diff_b"))
    assert (expected - base_of(kind)(inputs(kind))).abs().max() > 0.02
    torch.testing.assert_close(model(inputs(kind)), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize(("algo", "options", "formula"), CASES, ids=IDS)
def test_a_new_layer_changes_nothing_and_a_file_brings_the_trained_one_back(
    kind: str, algo: str, options: dict[str, Any], formula: object
) -> None:
    trained, fresh = adapted(kind, algo, **options).eval(), base_of(kind)
    plan = LayerPlan("lora_unet_x", algo, 4, 2.0, options)
    add_adapter(fresh, {"0": plan}, Dropouts(), seed=8)
    torch.testing.assert_close(fresh.eval()(inputs(kind)), base_of(kind)(inputs(kind)), rtol=1e-5, atol=1e-6)
    file = {path: {name: t.clone() for name, t in of.items()} for path, of in adapter_tensors(trained).items()}
    assert load_adapter(fresh, file) == ()
    torch.testing.assert_close(fresh(inputs(kind)), trained(inputs(kind)), rtol=1e-5, atol=1e-6)
    assert {name: t.shape for name, t in adapter_tensors(fresh)["0"].items()} == {
        name: t.shape for name, t in file["0"].items()
    }


@pytest.mark.parametrize("algo", ["norm"])
@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.GroupNorm(2, 8)], ids=["layer", "group"])
def test_norms_change_weight_and_bias(algo: str, norm: nn.Module) -> None:
    model = nn.Sequential(copy.deepcopy(norm))
    add_adapter(model, {"0": LayerPlan("x", algo, 0, 0.0)}, Dropouts(), seed=1)
    x = torch.randn(3, 8, 4, 8)
    file = adapter_tensors(model)["0"]
    assert file.keys() == {"w_norm", "b_norm"}
    assert torch.equal(model(x), norm(x))
    file["w_norm"].fill_(0.5)
    file["b_norm"].fill_(0.25)
    expected = copy.deepcopy(norm)
    expected.weight.data += 0.5
    expected.bias.data += 0.25
    torch.testing.assert_close(model(x), expected(x))


def test_a_boft_rotates_and_leaves_lengths_as_they_are() -> None:
    model = adapted("linear", "boft").eval()
    file = adapter_tensors(model)["0"]
    assert file["oft_blocks"].shape == (3, 4, 4, 4) or file["oft_blocks"].dim() == 4
    x = inputs("linear")
    bias = base_of("linear")[0].bias
    before, after = base_of("linear")(x) - bias, model(x) - bias
    assert (before - after).abs().max() > 0.05
    torch.testing.assert_close(after.norm(dim=-1), before.norm(dim=-1), rtol=1e-4, atol=1e-5)


def test_sizes_that_a_kind_cannot_do_are_given_back_with_the_reason() -> None:
    model = nn.Sequential(nn.Linear(4, 48), nn.Linear(48, 64))
    plans = {path: LayerPlan(path, "boft", 4, 1.0) for path in ("0", "1")}
    refused = add_adapter(model, plans, Dropouts(), seed=0)
    assert refused.keys() == {"0"}
    assert "48" in refused["0"]
    assert adapter_layers(model).keys() == {"1"}


@pytest.mark.parametrize("algo", ["locon", "loha", "lokr", "glora", "full", "dylora"])
def test_small_changes_reach_the_output_over_a_half_precision_base(algo: str) -> None:
    """A change that is added to a bfloat16 weight is rounded away below 1/256 of it."""
    model = adapted("linear", algo, dtype=torch.bfloat16)
    file = {name: tensor.clone().float() for name, tensor in adapter_tensors(model)["0"].items()}
    layer = adapter_layers(model)["0"]
    layer.limit_norm(1e-3)
    small = {name: tensor.clone().float() for name, tensor in adapter_tensors(model)["0"].items()}
    assert any(not torch.equal(file[name], small[name]) for name in file)
    model.eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        x = torch.randn(4000, 24, generator=torch.Generator().manual_seed(0))
        with adapter_disabled(model):
            base = model(x).float()
        moved = (model(x).float() - base).abs().mean()
    assert moved > 0


@pytest.mark.parametrize(
    ("algo", "options"), [(algo, options) for algo, options, _ in CASES if algo not in ("ia3", "full")]
)
def test_a_norm_is_limited_to_the_largest(algo: str, options: dict[str, Any]) -> None:
    model = adapted("conv3", algo, **options)
    layer: Any = adapter_layers(model)["0"]
    model.eval()
    before = layer.measured().norm()
    limit_norms(model, float(before) * 2)
    torch.testing.assert_close(layer.measured().norm(), before)
    limit_norms(model, float(before) / 2)
    torch.testing.assert_close(layer.measured().norm(), before / 2, rtol=1e-4, atol=1e-6)


def test_the_beginning_follows_from_the_seed_and_the_name_alone() -> None:
    def first(seed: int, name: str, *others: str) -> Tensor:
        torch.manual_seed(99)
        model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(1 + len(others))])
        before = torch.get_rng_state()
        plans = {str(i): LayerPlan(each, "loha", 2, 1.0) for i, each in enumerate((*others, name))}
        add_adapter(model, plans, Dropouts(), seed)
        assert torch.equal(torch.get_rng_state(), before)
        return adapter_tensors(model)[str(len(others))]["hada_w1_a"].clone()

    assert torch.equal(first(1, "a"), first(1, "a", "b", "c"))
    assert not torch.equal(first(1, "a"), first(2, "a"))
    assert not torch.equal(first(1, "a"), first(1, "b"))


def test_dylora_trains_one_block_of_ranks_at_a_time_with_those_below_it_in_use() -> None:
    model = adapted("linear", "dylora", block_size=1).train()
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        model.zero_grad()
        result = model(inputs("linear"))
        result.square().sum().backward()
        named = dict(adapter_layers(model)["0"].named_parameters())
        trained = {int(name[-1]) for name, weight in named.items() if weight.grad is not None}
        assert len(trained) == 1
        block = trained.pop()
        seen.add(block)
        file = adapter_tensors(model)["0"]
        part = file["lora_up.weight"][:, : block + 1] @ file["lora_down.weight"][: block + 1] * 2.0 / (block + 1)
        torch.testing.assert_close(result, changed(model, "linear", part), rtol=1e-4, atol=1e-5)
    assert seen == {0, 1, 2, 3}


def test_a_left_out_layer_is_the_base() -> None:
    model = adapted("linear", "loha", Dropouts(module=0.5)).train()
    base, whole = base_of("linear")(inputs("linear")), model.eval()(inputs("linear"))
    model.train()
    kinds = []
    for seed in range(60):
        torch.manual_seed(seed)
        result = model(inputs("linear"))
        assert torch.allclose(result, base) or torch.allclose(result, whole)
        kinds.append(torch.allclose(result, base))
    assert 15 < sum(kinds) < 45


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hada_w1_a": torch.ones(16, 4)}, r"0: the file has hada_w1_a, which this kind of layer has not"),
        ({"lora_up.weight": torch.ones(16, 4)}, r"0: the file has no lora_down.weight, which this kind"),
        (
            {"lora_up.weight": torch.ones(16, 2), "lora_down.weight": torch.ones(2, 24)},
            r"lora_up.weight of the file has the shape \(16, 2\), here it has \(16, 4\)",
        ),
    ],
)
def test_a_file_of_another_kind_or_size_is_refused(wrong: dict[str, Tensor], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        load_adapter(adapted("linear", "locon"), {"0": wrong})
