"""What benches measure with: the order of the steps, the arithmetic, memory, and the products that are counted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from tools.benches import measuring
from tools.benches.measuring import Course, flops_of, flops_on_meta, in_turn, on_meta, peak_gib, timed

CPU = torch.device("cpu")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for each collection of garbage is long for steps that do nothing."""
    monkeypatch.setattr(measuring, "give_back", lambda: None)


def ways(log: list[str], second: float = 1.0) -> dict[str, Callable[[], Course]]:
    def opened(name: str, loss: float) -> Course:
        log.append(f"open {name}")
        return Course(lambda: name, log.append, {"loss": loss})

    return {"a": partial(opened, "a", 1.0), "b": partial(opened, "b", second)}


@pytest.mark.usefixtures("hasty")
def test_ways_take_turns_after_a_step_each_for_their_memory() -> None:
    log: list[str] = []
    taken = in_turn(ways(log), 2, CPU, tolerance=0.01)
    assert log == ["open a", "a", "open b", "b", "a", "b", "a", "b"]
    assert [(name, len(each.seconds), len(each.host)) for name, each in taken.items()] == [("a", 2, 2), ("b", 2, 2)]


@pytest.mark.usefixtures("hasty")
def test_one_by_one_a_way_is_done_before_the_next_is_opened() -> None:
    log: list[str] = []
    in_turn(ways(log), 2, CPU, tolerance=0.01, one_by_one=True)
    assert log == ["open a", "a", "a", "a", "open b", "b", "b", "b"]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_way_that_computes_something_else_is_no_way(one_by_one: bool) -> None:
    with pytest.raises(ValueError, match=r"^b: loss is 1\.02, of the first way 1, on the same batch$"):
        in_turn(ways([], 1.02), 1, CPU, tolerance=0.01, one_by_one=one_by_one)


def test_the_host_is_on_a_cpu_what_prepares_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 11.0, 14.0, 15.0])
    monkeypatch.setattr(measuring, "clock_of", lambda device: lambda: next(moments))
    assert timed(Course(lambda: None, lambda _: None), CPU) == (5.0, 1.0)


def test_the_peak_of_a_step_is_what_it_allocates_in_between() -> None:
    def step() -> None:
        torch.ones(16, 2**20).add_(1.0)  # 64 MiB

    found = peak_gib(step, CPU)
    if found is None:
        pytest.skip("this system does not tell")
    assert 60 < found * 1024 < 90


def test_products_are_counted() -> None:
    a, b = torch.randn(5, 7), torch.randn(7, 3)
    assert flops_of(lambda: a @ b) == 2 * 5 * 7 * 3


def test_products_are_counted_of_gradients_within_a_pass_too() -> None:
    x, weight = torch.randn(5, 7, requires_grad=True), torch.randn(7, 3, requires_grad=True)

    def step() -> None:
        (gradient,) = torch.autograd.grad((x @ weight).square().sum(), x, create_graph=True)
        gradient.square().sum().backward()  # type: ignore[no-untyped-call]

    assert flops_of(step) > 3 * 2 * 5 * 7 * 3


@pytest.mark.parametrize("whole, products", [(True, 5), (False, 4)])  # two there, then by the weights and the input
def test_on_the_meta_device_nothing_is_computed(whole: bool, products: int) -> None:
    layers = nn.Sequential(nn.Linear(7, 7, bias=False), nn.Linear(7, 7, bias=False)).bfloat16()
    weights = list(layers.parameters()) if whole else [layers[0].weight]
    batch = on_meta({"x": torch.randn(5, 7, dtype=torch.float16), "ids": (torch.ones(3, dtype=torch.long),), "n": 2})
    assert (batch["x"].dtype, batch["ids"][0].device.type, batch["n"]) == (torch.float32, "meta", 2)

    def run() -> torch.Tensor:
        with torch.autocast(batch["x"].device.type, enabled=False):
            return layers(batch["x"]).sum()

    assert flops_on_meta([layers], weights, run) == products * 2 * 5 * 7 * 7
    assert all(weight.grad is None and weight.dtype == torch.bfloat16 for weight in layers.parameters())
