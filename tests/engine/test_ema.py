"""The moving average equals the published formula, survives a stop to the bit and takes the network's place."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.engine.ema import Ema
from lora_trainer.errors import Refusal


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.tied = self.conv


def network(dtype: torch.dtype = torch.float32) -> Small:
    torch.manual_seed(3)
    return Small().to(dtype)


@torch.no_grad()
def move(module: nn.Module, step: int) -> None:
    """Stands for an optimizer's step."""
    generator = torch.Generator().manual_seed(step)
    for weight in module.parameters():
        weight.add_(torch.randn(weight.shape, generator=generator).to(weight.dtype), alpha=0.1)
    module.norm.running_mean.fill_(step)


def bias(module: Any) -> list[float]:
    return module.conv.bias.detach().double().tolist()


def published(weights: list[list[float]], beta: float, power: float, update_after: int) -> list[float]:
    """ema-pytorch with update_every 1 and inv_gamma 1: what its counter, its copies and its lerp do, one by one."""
    average = [0.0] * len(weights[0])
    counter = 0
    for now in weights:
        before, counter = counter, counter + 1
        if before <= update_after:
            average = list(now)
            continue
        epoch = max(0, counter - update_after - 1)
        decay = min(beta, max(0.0, 1 - (1 + epoch) ** -power))
        average = [old + (new - old) * (1 - decay) for old, new in zip(average, now, strict=True)]
    return average


@pytest.mark.parametrize(("power", "update_after"), [(0.75, 0), (2 / 3, 0), (0.75, 5), (1.0, 1)])
def test_the_rising_average_is_that_of_ema_pytorch(power: float, update_after: int) -> None:
    module = network()
    ema = Ema(module, 0.8, power=power, update_after=update_after)
    seen = []
    for step in range(30):
        move(module, step)
        ema.update(step)
        seen.append(bias(module))
    assert ema.decay_at(3) == pytest.approx(min(0.8, 1 - 4**-power))
    assert ema.decay_at(10_000) == 0.8
    assert ema.weights()["conv.bias"].tolist() == pytest.approx(published(seen, 0.8, power, update_after), abs=1e-6)


def test_without_a_power_it_begins_at_the_weights_before_training() -> None:
    """BasicSR: average = decay * average + (1 - decay) * weight from the first step."""
    module = network()
    ema = Ema(module, 0.9)
    expected = bias(module)
    for step in range(12):
        move(module, step)
        ema.update(step)
        expected = [0.9 * old + 0.1 * new for old, new in zip(expected, bias(module), strict=True)]
    assert ema.weights()["conv.bias"].tolist() == pytest.approx(expected, abs=1e-6)


def test_halves_are_averaged_in_float32() -> None:
    """In bf16 a share of 0.001 of a small change would be lost."""
    module = network(torch.bfloat16)
    ema = Ema(module, 0.999)
    before = module.conv.bias.detach().double().clone()
    with torch.no_grad():
        module.conv.bias.add_(0.25)
    after = module.conv.bias.detach().double()
    for step in range(3):
        ema.update(step)
    found = ema.weights()["conv.bias"]
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), before + (after - before) * (1 - 0.999**3), atol=1e-7, rtol=0)
    assert ema.weights(torch.bfloat16)["conv.weight"].dtype == torch.bfloat16


def test_the_network_becomes_its_average_every_so_often() -> None:
    module = network()
    ema = Ema(module, 0.5, switch_every=3)
    for step in range(6):
        move(module, step)
        ema.update(step)
        same = torch.equal(module.conv.weight, ema.weights()["conv.weight"])
        assert same == (step in (2, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_within_swapped_the_module_is_averaged_and_afterwards_nothing_has_changed(dtype: torch.dtype) -> None:
    module = network(dtype)
    ema = Ema(module, 0.9)
    for step in range(4):
        move(module, step)
        ema.update(step)
    online = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    averages = ema.state_dict()
    exported = ema.weights()
    parameters = list(module.parameters())
    with ema.swapped() as inside, ema.swapped():
        assert inside is module
        assert torch.equal(module.conv.weight, averages["conv.weight"].to(dtype))
        assert not torch.equal(module.conv.weight, online["conv.weight"])
        assert module.norm.running_mean.tolist() == [3.0] * 4  # shared, not averaged
        for name, tensor in ema.weights().items():
            assert torch.equal(tensor, exported[name])
    assert all(new is old for new, old in zip(module.parameters(), parameters, strict=True))
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, online[name])
    for name, tensor in ema.state_dict().items():
        assert torch.equal(tensor, averages[name])


def test_no_memory_is_taken_by_swapping_weights_in_float32() -> None:
    module = network()
    ema = Ema(module, 0.9)
    move(module, 0)
    places = {module.conv.weight.data_ptr(), ema._averages["conv.weight"].data_ptr()}
    online = module.conv.weight.data_ptr()
    with ema.swapped():
        assert {module.conv.weight.data_ptr(), ema._averages["conv.weight"].data_ptr()} == places
        assert module.conv.weight.data_ptr() != online
    assert module.conv.weight.data_ptr() == online


def test_what_is_written_is_the_average_itself_and_the_weights_stay_those_that_others_know() -> None:
    module = network(torch.bfloat16)
    ema = Ema(module, 0.5)
    move(module, 1)
    ema.update(0)
    averages, parameters = ema.state_dict(), list(module.parameters())
    before = [weight.detach().clone() for weight in parameters]
    with ema.written() as found:
        state = found.state_dict()
        assert state["conv.weight"].dtype == torch.float32
        assert not state["conv.weight"].equal(state["conv.weight"].bfloat16())
        assert state["conv.weight"].equal(averages["conv.weight"])
        assert state["tied.weight"].equal(averages["conv.weight"])
        assert state["norm.running_mean"].equal(module.norm.running_mean)
    assert all(now is then for now, then in zip(module.parameters(), parameters, strict=True))
    assert all(now.equal(then) for now, then in zip(parameters, before, strict=True))
    assert module.tied.weight is module.conv.weight
    with ema.swapped(), pytest.raises(RuntimeError, match="leave `swapped"), ema.written():
        pass


def test_an_error_within_swapped_leaves_the_network_as_it_was() -> None:
    module = network()
    ema = Ema(module, 0.9)
    move(module, 0)
    before = module.conv.weight.detach().clone()
    with pytest.raises(KeyError), ema.swapped():
        raise KeyError
    assert torch.equal(module.conv.weight, before)
    ema.update(0)


def test_what_would_mix_up_weights_and_averages_is_an_error() -> None:
    ema = Ema(network(), 0.9)
    with ema.swapped():
        with pytest.raises(RuntimeError, match="leave `swapped"):
            ema.update(0)
        with pytest.raises(RuntimeError, match="leave `swapped"):
            ema.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_continued_average_is_that_of_an_undisturbed_run(dtype: torch.dtype) -> None:
    def run(module: Small, ema: Ema, steps: range) -> None:
        for step in steps:
            move(module, step)
            ema.update(step)

    whole = network(dtype)
    undisturbed = Ema(whole, 0.99, power=0.75, switch_every=4)
    run(whole, undisturbed, range(9))
    first = network(dtype)
    stopped = Ema(first, 0.99, power=0.75, switch_every=4)
    run(first, stopped, range(5))
    buffer = io.BytesIO()
    torch.save({"module": first.state_dict(), "ema": stopped.state_dict()}, buffer)
    saved = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    second = network(dtype)
    continued = Ema(second, 0.99, power=0.75, switch_every=4)
    second.load_state_dict(saved["module"])
    continued.load_state_dict(saved["ema"])
    run(second, continued, range(5, 9))
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, continued.state_dict()[name])
    assert torch.equal(whole.conv.weight, second.conv.weight)


def test_a_state_of_other_weights_is_refused() -> None:
    ema = Ema(network(), 0.9)
    state = ema.state_dict()
    with pytest.raises(Refusal, match=r"other weights than this network.*--restart"):
        ema.load_state_dict({**state, "conv.bias": torch.zeros(1)})
    del state["conv.bias"]
    with pytest.raises(Refusal, match="other weights"):
        ema.load_state_dict(state)


def test_the_export_holds_every_name_of_the_state_dict() -> None:
    module = network()
    ema = Ema(module, 0.9)
    move(module, 0)
    ema.update(0)
    exported = ema.weights(torch.float16)
    assert list(exported) == list(module.state_dict())
    assert torch.equal(exported["tied.weight"], exported["conv.weight"])  # one weight under two names
    assert not torch.equal(exported["conv.weight"], module.conv.weight.half())
    assert exported["norm.num_batches_tracked"].dtype == torch.int64
    assert exported["norm.running_mean"].tolist() == [0.0] * 4
    exported["conv.weight"].zero_()
    assert ema.weights()["conv.weight"].abs().sum() > 0


def test_a_copied_module_stands_alone() -> None:
    module = network().train()
    ema = Ema(module, 0.9)
    move(module, 0)
    ema.update(0)
    copied = ema.copy_module()
    assert torch.equal(copied.conv.weight, ema.weights()["conv.weight"])
    assert not copied.training and module.training
    assert not any(weight.requires_grad for weight in copied.parameters())
    assert all(weight.requires_grad for weight in module.parameters())
    move(module, 1)
    ema.update(1)
    assert not torch.equal(copied.conv.weight, ema.weights()["conv.weight"])


def test_only_the_named_weights_are_averaged() -> None:
    module = network()
    ema = Ema(module, 0.9, only=["conv.weight"])
    move(module, 0)
    ema.update(0)
    assert list(ema.state_dict()) == ["conv.weight"]
    assert torch.equal(ema.weights()["conv.bias"], module.conv.bias)
    assert not torch.equal(ema.weights()["conv.weight"], module.conv.weight)


def test_channels_last_and_training_go_on_around_it() -> None:
    module = network().to(memory_format=torch.channels_last)
    ema = Ema(module, 0.5)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)
    for step in range(3):
        with ema.swapped(), torch.no_grad():
            module.conv(torch.ones(1, 3, 5, 5))
        module.conv(torch.ones(1, 3, 5, 5)).sum().backward()
        before = module.conv.weight.detach().clone()
        optimizer.step()
        optimizer.zero_grad()
        assert not torch.equal(module.conv.weight, before)
        ema.update(step)
    with ema.swapped():
        assert module.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_decay_must_be_a_share() -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1, found 1\.5"):
        Ema(network(), 1.5)
