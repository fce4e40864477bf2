"""Optimizers by name, and their state restored to the bit."""

from __future__ import annotations

import copy
import importlib.util
import io
import re
import sys
from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.engine.optimizers import (
    OPTIMIZERS,
    Group,
    load_optimizer_state,
    make_optimizer,
    optimizer_names,
    optimizer_problems,
    rates,
    set_mode,
    set_rates,
)
from lora_trainer.engine.phase import Losses, Phase, settled
from lora_trainer.errors import Refusal

OWN_RATE = ("Prodigy", "DAdapt")
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"min_8bit_size": 1} for name in OPTIMIZERS if "8bit" in name},
    **{name: {"d0": 0.01} for name in OPTIMIZERS if name.startswith(OWN_RATE)},
    "SOAP": {"precondition_frequency": 2},
}
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, OPTIONS.get(name, {})) for name in OPTIMIZERS),
    ("Adafactor", {"relative_step": False, "scale_parameter": False}),
    ("torch.optim.Muon", {}),
    ("pytorch_optimizer.FAdam", {}),
]


def there(name: str) -> None:
    if name.startswith("DAdapt") and importlib.util.find_spec("dadaptation") is None:
        pytest.skip("dadaptation is not installed")


def rate_of(name: str) -> float:
    return 1.0 if name.startswith((*OWN_RATE, "Adadelta")) else 0.02


def weights(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for name, shape in (("down", (4, 40)), ("up", (40, 4)))
    }


def network_weights(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    """As of a convolutional network on a GPU."""
    generator = torch.Generator().manual_seed(2)
    kernel = torch.randn((6, 4, 3, 3), generator=generator).to(dtype, memory_format=torch.channels_last)
    bias = torch.randn((6,), generator=generator).to(dtype)
    return {**weights(dtype), "conv.weight": nn.Parameter(kernel), "conv.bias": nn.Parameter(bias)}


def gradients(trained: dict[str, nn.Parameter], step: int, factor: float = 1.0) -> None:
    for index, weight in enumerate(trained.values()):
        generator = torch.Generator().manual_seed(100 * step + index)
        weight.grad = torch.empty_like(weight)
        weight.grad.copy_(factor * torch.randn(weight.shape, generator=generator).to(weight.dtype))


def run(optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        gradients(trained, step)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n} {sorted(o)}" for n, o in CASES])
def test_a_continued_optimizer_takes_the_steps_of_an_undisturbed_one(
    name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    there(name)
    make_weights = weights if name == "torch.optim.Muon" else network_weights

    def groups(trained: dict[str, nn.Parameter]) -> list[Group]:
        first = {key: trained[key] for key in ("down", "up")}
        rest = {key: weight for key, weight in trained.items() if key not in first}
        return [Group("first", rate_of(name), first), *([Group("rest", rate_of(name), rest)] if rest else [])]

    whole, parted = make_weights(dtype), make_weights(dtype)
    undisturbed = make_optimizer(name, groups(whole), options)
    run(undisturbed, whole, range(11))
    first = make_optimizer(name, groups(parted), options)
    run(first, parted, range(5))
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    saved = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    second = make_optimizer(name, groups(parted), options)
    load_optimizer_state(second, saved)
    run(second, parted, range(5, 11))
    start = make_weights(dtype)
    for key in whole:
        assert not torch.equal(whole[key], start[key])
        assert whole[key].isfinite().all()
        assert torch.equal(whole[key], parted[key])


@pytest.mark.parametrize("name", optimizer_names())
def test_steps_with_infinite_gradients_are_skipped_under_loss_scaling(name: str) -> None:
    """As engine.step does it in fp16; a power of two as the scale changes no bit of float32."""
    there(name)
    plain, scaled = weights(torch.float32), weights(torch.float32)
    alone = make_optimizer(name, [Group("all", rate_of(name), plain)], OPTIONS.get(name, {}))
    optimizer = make_optimizer(name, [Group("all", rate_of(name), scaled)], OPTIONS.get(name, {}))
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=1000)
    scaler.scale(torch.ones(()))
    for step in range(8):
        gradients(plain, step)
        gradients(scaled, step, factor=scaler.get_scale())
        if step == 2:
            scaled["up"].grad[3, 1] = torch.inf  # type: ignore[index]
        else:
            alone.step()
        scaler.unscale_(optimizer)
        before = {key: weight.detach().clone() for key, weight in scaled.items()}
        scaler.step(optimizer)
        scaler.update()
        same = all(torch.equal(before[key], weight) for key, weight in scaled.items())
        assert same if step == 2 else not same or step < 7  # some wait a few steps before they move
    assert all(torch.equal(plain[key], weight) for key, weight in scaled.items())


@pytest.mark.parametrize("name", optimizer_names())
def test_who_skips_on_the_device_leaves_weights_and_state_alone(name: str) -> None:
    there(name)
    trained = weights(torch.float32)
    optimizer = make_optimizer(name, [Group("all", rate_of(name), trained)], OPTIONS.get(name, {}))
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        assert name not in ("AdamW", "Adam")  # those skip by themselves
        return
    run(optimizer, trained, range(2))
    before = copy.deepcopy((optimizer.state_dict()["state"], list(trained.values())))
    gradients(trained, 2, factor=torch.nan)
    optimizer.grad_scale, optimizer.found_inf = None, torch.ones(())  # type: ignore[attr-defined]
    optimizer.step()
    for key, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, before[0][key][name]) for name, value in state.items())
    assert all(torch.equal(new, old) for new, old in zip(trained.values(), before[1], strict=True))


def test_rates_follow_the_schedule_group_by_group() -> None:
    trained = weights(torch.float32)
    groups = [Group("unet", 1e-3, {"down": trained["down"]}), Group("text_encoder", 1e-4, {"up": trained["up"]})]
    optimizer = make_optimizer("adamw", groups, {})
    set_rates(optimizer, lambda group: 0.5, 0)
    assert rates(optimizer) == {"unet": 5e-4, "text_encoder": 5e-5}
    set_rates(optimizer, lambda group: 1.0, 0)
    assert rates(optimizer) == {"unet": 1e-3, "text_encoder": 1e-4}


def test_rates_of_those_that_find_their_own() -> None:
    trained = weights(torch.float32)
    adafactor = make_optimizer("Adafactor", [Group("all", 1.0, trained)], {})
    assert rates(adafactor) == {"all": 0.0}
    run(adafactor, trained, range(2))
    assert 0 < rates(adafactor)["all"] < 0.1
    prodigy = make_optimizer("Prodigy", [Group("all", 1.0, trained)], {"d0": 1e-5})
    assert rates(prodigy) == {"all": pytest.approx(1e-5)}


def test_json_numbers_for_betas_become_floats() -> None:
    optimizer = make_optimizer("AdamW", [Group("all", 1e-3, weights(torch.float32))], {"betas": (0, 0.99)})
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.99)


def test_options_that_do_not_fit_are_refused_with_their_name() -> None:
    group = Group("all", 1e-3, weights(torch.float32))
    with pytest.raises(Refusal, match=r'optimizer_args: the optimizer "Lion" does not accept .*momentum'):
        make_optimizer("Lion", [group], {"momentum": 0.9})
    expected = r'optim_g: the optimizer "Adan" does not accept weight_decai; .*did you mean weight_decay\?'
    with pytest.raises(Refusal, match=expected):
        make_optimizer("Adan", [group], {"weight_decai": 0.9}, key="optim_g")
    with pytest.raises(Refusal, match=r"optim_d: .*Invalid eps"):
        make_optimizer("AdamW", [group], {"eps": -1.0}, key="optim_d")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("AdanW", {}, r'there is no optimizer "AdanW"; there is AdamW, .*did you mean A'),
        ("AdamW", {"beta": [0.9, 0.99]}, "does not accept beta; it takes betas, eps,.*did you mean betas"),
        ("adan-sf", {"betas": [0.9, 0.99]}, r"write 3 numbers such as \(0.98, 0.92, 0.99\)"),
        ("Lion", {"betas": 0.9}, "does not accept betas 0.9; write 2 numbers"),
        ("Adan", {"cautious": True}, "does not accept cautious; it takes betas,.*use_gc"),
        ("torch.optim.AdaGrad", {}, "torch.optim has no AdaGrad; did you mean Adagrad?"),
        ("torch.nn.Linear", {}, "is not a torch.optim.Optimizer"),
        ("torch.optim.LBFGS", {}, "asks for the loss several times"),
        ("nowhere.Best", {}, "needs the package nowhere, which is not installed: `pip install nowhere`"),
        ("pytorch_optimizer.Muon", {}, "`use_muon` must be set"),
    ],
)
def test_problems_are_found_without_a_model(name: str, options: dict[str, Any], message: str) -> None:
    [problem] = optimizer_problems(name, options)
    assert re.search(message, problem), problem


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adamw_sf", {"warmup_steps": 10}), ("AdamW-SF", {}), ("ADAN_SF", {"betas": [0.98, 0.92, 0.987]}),
        ("AdamW", {"foreach": True}), ("Adan", {"use_gc": True}), ("torch.optim.Muon", {"ns_steps": 3}),
        ("SGD", {"momentum": 0.9}), ("PagedLion8bit", {"betas": (0, 0.99)}),
    ],
)  # fmt: skip
def test_what_fits_has_no_problems(name: str, options: dict[str, Any]) -> None:
    assert optimizer_problems(name, options) == []


@pytest.mark.parametrize(
    ("name", "package", "cure"),
    [
        ("SOAP", "pytorch_optimizer", "`pip install lora_trainer[optimizers]`"),
        ("AdamWScheduleFree", "schedulefree", "`pip install lora_trainer[optimizers]`"),
        ("PagedAdamW8bit", "bitsandbytes", '`pip install bitsandbytes`, or set it to "AdamW"'),
        ("Lion", "lion_pytorch", "`pip install lion-pytorch`"),
    ],
)
def test_a_missing_package_is_named_with_its_cure(
    name: str, package: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "meta_path", [])  # as if nothing more were installed
    [problem] = optimizer_problems(name, {})
    assert problem == f'the optimizer "{name}" needs the package {package}, which is not installed: {cure}'


def test_kohyas_nesterov_has_its_momentum() -> None:
    optimizer = make_optimizer("SGDNesterov", [Group("all", 1e-3, weights(torch.float32))], {})
    assert optimizer.param_groups[0]["nesterov"] and optimizer.param_groups[0]["momentum"] == 0.9
    other = make_optimizer("sgdnesterov", [Group("all", 1e-3, weights(torch.float32))], {"momentum": 0.5})
    assert other.param_groups[0]["momentum"] == 0.5


def test_one_estimated_rate_allows_no_two_rates() -> None:
    trained = weights(torch.float32)
    groups = [Group("unet", 1.0, {"down": trained["down"]}), Group("text_encoder", 0.5, {"up": trained["up"]})]
    with pytest.raises(Refusal, match=r"one rate for all weights; make these equal or 0: unet 1, text_encoder 0\.5"):
        make_optimizer("Prodigy", groups, {})
    make_optimizer("Prodigy", [groups[0], Group("text_encoder", 0.0, {"up": trained["up"]})], {})


SCHEDULE_FREE = ("AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree", "Adan_SF")


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_schedule_free_weights_settle_for_a_file_and_come_back_to_the_bit(name: str) -> None:
    trained = weights(torch.float32)
    optimizer = make_optimizer(name, [Group("all", 0.02, trained)], {})
    phase = Phase("g", nn.Identity(), trained, optimizer, lambda module, batch: Losses(torch.zeros(1)), lambda step: 1)
    run(optimizer, trained, range(8))
    before = {key: weight.detach().clone() for key, weight in trained.items()}
    with settled([phase]):
        averaged = {key: weight.detach().clone() for key, weight in trained.items()}
    assert all(torch.equal(trained[key], before[key]) for key in trained)
    assert not torch.equal(averaged["up"], before["up"])
    set_mode(optimizer, training=False)
    assert all(torch.equal(trained[key], averaged[key]) for key in trained)
    set_mode(optimizer, training=True)
    run(optimizer, trained, range(8, 9))


def test_other_optimizers_have_no_mode() -> None:
    trained = weights(torch.float32)
    optimizer = make_optimizer("AdamW", [Group("all", 0.02, trained)], {})
    run(optimizer, trained, range(2))
    before = trained["up"].detach().clone()
    set_mode(optimizer, training=False)
    assert torch.equal(trained["up"], before)


def test_loading_does_not_alias_what_was_saved() -> None:
    trained = weights(torch.float32)
    optimizer = make_optimizer("AdamW", [Group("all", 0.01, trained)], {})
    run(optimizer, trained, range(2))
    saved = copy.deepcopy(optimizer.state_dict())
    load_optimizer_state(optimizer, saved)
    before = saved["state"][0]["exp_avg"].clone()
    run(optimizer, trained, range(2, 4))
    assert torch.equal(saved["state"][0]["exp_avg"], before)
