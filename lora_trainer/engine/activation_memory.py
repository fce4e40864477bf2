"""What a forward pass keeps for its backward pass, measured on PyTorch's meta device: no memory, no GPU, no waiting."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

# what autocast makes 16 bits, and what it makes float32; https://docs.pytorch.org/docs/stable/amp.html
HALVED = (F.linear, F.conv2d, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, torch.baddbmm, torch.addmm)
WIDENED: Mapping[str, Collection[Callable[..., Any]]] = {
    "cuda": (F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax, torch.exp, torch.pow, Tensor.pow),
    "cpu": (),
}

# of a moment, by whether a checkpointed block is running, and whether it is a weight
KINDS = {(False, False): "kept", (False, True): "copies", (True, False): "again", (True, True): "again_copies"}


@dataclass
class Moment:
    """Bytes of one place of a pass."""

    kept: int = 0  # until the backward pass has been here
    copies: int = 0  # the same, of weights in 16 bits
    again: int = 0  # computed a second time by gradient checkpointing, and kept while the backward pass is here
    again_copies: int = 0
    gradients: int = 0  # that are made here
    largest: int = 0  # of them


@dataclass(frozen=True)
class Pass:
    """A forward pass in its order."""

    moments: Sequence[Moment]
    held: int  # bytes of 16-bit weights that autocast drops when the forward pass ends

    @property
    def activations(self) -> int:
        """What is kept when the forward pass ends, without weights."""
        return sum(moment.kept for moment in self.moments)

    @property
    def copies(self) -> int:
        """Weights in 16 bits beside those in more, when the forward pass ends."""
        return self.held + sum(moment.copies for moment in self.moments)

    @property
    def gradients(self) -> int:
        return sum(moment.gradients for moment in self.moments)

    @property
    def largest_gradient(self) -> int:
        return max(moment.largest for moment in self.moments)

    def in_half(self) -> Pass:
        """The same with trained weights of 16 instead of 32 bits, of which autocast makes no copies."""
        less = {"copies": 0, "again_copies": 0}
        return Pass(
            [replace(each, gradients=each.gradients // 2, largest=each.largest // 2, **less) for each in self.moments],
            0,
        )

    def peak(self, *, fused: float = 0.0, gradients_stay: bool = False, share: float = 1.0) -> int:
        """The most that activations, copies and gradients need together, with this share of the batch.

        With `fused` each gradient is freed at once; it is what the weight's step takes, as a multiple of its gradient.
        `gradients_stay` says that they lie there in the forward pass too.
        """
        alive = sum(moment.kept * share + moment.copies for moment in self.moments)
        gradients = float(self.gradients) if gradients_stay else 0.0
        most = alive + self.held + gradients
        for moment in reversed(self.moments):
            if fused:
                gradients = fused * moment.largest
            elif not gradients_stay:
                gradients += moment.gradients
            most = max(most, alive + gradients + moment.again * share + moment.again_copies)
            alive -= moment.kept * share + moment.copies
        return round(most)


def meta_copy(module: nn.Module, dtype_of: Callable[[str, Tensor], torch.dtype] | None = None) -> nn.Module:
    """The module again, with weights and buffers that have only a shape and a format; the module stays as it is."""
    memo: dict[int, Any] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        dtype = dtype_of(name, tensor) if dtype_of else tensor.dtype
        empty = torch.empty_like(tensor, device="meta", dtype=dtype)
        weight = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if weight else empty
    return copy.deepcopy(module, memo)


def measure(
    module: nn.Module,
    inputs: Sequence[Any],
    trained: Collection[str],
    *,
    half: torch.dtype | None = None,
    checkpointing: bool = False,
    device_type: str = "cuda",
) -> Pass:
    """Run a `meta_copy` on inputs that are on the meta device. `trained` are the names of the weights that get
    gradients; `half` is autocast's format. What the module does must not depend on the values of tensors."""
    weights = dict(module.named_parameters())
    for name, weight in weights.items():
        weight.requires_grad_(name in trained)
    tape = _Tape([weights[name] for name in trained])
    resident = [*weights.values(), *module.buffers()]
    for child in module.modules():
        if hasattr(child, "gradient_checkpointing"):
            child.gradient_checkpointing = checkpointing  # type: ignore[assignment]
            child._gradient_checkpointing_func = tape.block if checkpointing else None  # type: ignore[assignment]
        if hasattr(child, "rung"):  # of a layer that forgets by itself
            child.block, child.keep = tape.block, tape.keep  # type: ignore[assignment]
    with contextlib.ExitStack() as stack:
        mode = _Measured(tape, half, WIDENED[device_type])
        stack.enter_context(_autocast_within(mode))
        stack.enter_context(mode)
        stack.enter_context(saved_tensors_hooks(tape.keeping(resident), _as_is))
        module(*inputs)
    return tape.result()


@dataclass
class _Tape:
    """What was seen so far. Storages are held, so that no other one gets their name."""

    trained: Sequence[nn.Parameter]
    moments: list[Moment] = field(default_factory=list)
    seen: dict[int, Any] = field(default_factory=dict)  # storages that are counted, or need not be
    copies: dict[int, Tensor] = field(default_factory=dict)  # of weights in 16 bits, by the weight
    copied: set[int] = field(default_factory=set)  # their storages
    place: dict[int, int] = field(default_factory=dict)  # where a weight is used last
    inside: Moment | None = None  # the checkpointed block that is running

    def keeping(self, resident: Iterable[Tensor]) -> Callable[[Tensor], Tensor]:
        for tensor in resident:
            self.seen[_name(tensor)] = tensor.untyped_storage()
        return self.keep

    def keep(self, tensor: Tensor) -> Tensor:
        if _name(tensor) in self.seen:
            return tensor
        storage = tensor.untyped_storage()
        self.seen[_name(tensor)] = storage
        moment = self.inside or self._new()
        key = KINDS[self.inside is not None, _name(tensor) in self.copied]
        setattr(moment, key, getattr(moment, key) + storage.nbytes())
        return tensor

    def copy(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The weight in the format of the pass, made once."""
        if id(weight) not in self.copies:
            made = self.copies[id(weight)] = weight.to(dtype)
            self.copied.add(_name(made))
        return self.copies[id(weight)]

    def block(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """A checkpointed part: its inputs are kept, what it keeps itself is computed again."""
        if self.inside is not None or not torch.is_grad_enabled():
            return function(*inputs)
        for each in inputs:
            if torch.is_tensor(each):
                self.keep(each)
        self.inside = self._new()
        try:
            with saved_tensors_hooks(self.keep, _as_is):
                return function(*inputs)
        finally:
            self.inside = None

    def use(self, weight: Tensor) -> None:
        self.place[id(weight)] = max(0, len(self.moments) - (self.inside is not None))

    def result(self) -> Pass:
        moments = self.moments or [Moment()]
        sizes = {id(weight): weight.numel() * weight.element_size() for weight in self.trained}
        for key, size in sizes.items():
            if key in self.place:
                moment = moments[min(self.place[key], len(moments) - 1)]
                moment.gradients += size
                moment.largest = max(moment.largest, size)
        made = sum(copied.numel() * copied.element_size() for key, copied in self.copies.items() if key in sizes)
        stay = sum(moment.copies for moment in moments)
        return Pass(moments, max(0, made - stay))

    def _new(self) -> Moment:
        self.moments.append(Moment())
        return self.moments[-1]


class _Measured(TorchFunctionMode):
    """Autocast's rules, which PyTorch has not for this device, and an attention that keeps what fast kernels keep."""

    def __init__(self, tape: _Tape, half: torch.dtype | None, widened: Collection[Callable[..., Any]]) -> None:
        super().__init__()
        self.tape, self.half, self.widened = tape, half, frozenset(widened)
        self.weights = {id(weight) for weight in tape.trained}

    def __torch_function__(
        self, function: Any, types: Any, given: Sequence[Any] = (), words: Mapping[str, Any] | None = None
    ) -> Any:
        words = dict(words or {})
        for each in (*given, *words.values()):
            if id(each) in self.weights:
                self.tape.use(each)
        attention = function is F.scaled_dot_product_attention
        target = torch.float32 if function in self.widened else None
        if self.half is not None and (attention or function in HALVED):
            target = self.half
        if target is not None and self.half is not None:
            given = [self._as(each, target) for each in given]
            words = {name: self._as(each, target) for name, each in words.items()}
        return _attention(*given, **words) if attention else function(*given, **words)

    def _as(self, value: Any, dtype: torch.dtype) -> Any:
        if not torch.is_tensor(value) or not value.is_floating_point() or value.dtype == dtype:
            return value
        return self.tape.copy(value, dtype) if isinstance(value, nn.Parameter) else value.to(dtype)


@contextlib.contextmanager
def _autocast_within(mode: _Measured) -> Iterator[None]:
    """Layers that switch autocast off for a part of their work find these rules instead of PyTorch's, which knows none
    for this device."""

    @contextlib.contextmanager
    def autocast(device_type: str, dtype: torch.dtype | None = None, enabled: bool = True, **_: Any) -> Iterator[None]:
        before, mode.half = mode.half, (dtype or mode.half) if enabled else None
        try:
            yield
        finally:
            mode.half = before

    own = torch.autocast
    torch.autocast = autocast  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.autocast = own  # type: ignore[misc]


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **options: Any
) -> Tensor:
    result: Tensor = _FastAttention.apply(query, key, value, attn_mask)  # type: ignore[no-untyped-call]
    return result


class _FastAttention(torch.autograd.Function):
    """Keeps queries, keys, values, result, and one number for each query and head; never the table of weights."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        result, sums = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
        context.save_for_backward(query, key, value, mask, result, sums)
        return result


def _name(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _as_is(tensor: Tensor) -> Tensor:
    return tensor
