"""Import large libraries without what nobody needs of them yet."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import while the collector rests and nothing is compiled.

    The collector else goes through hundreds of thousands of new objects again and again and finds nothing: a quarter of
    the time that torch, diffusers and transformers take. It never looks at them again. bitsandbytes asks for compiled
    functions, for which torch loads its whole compiler; they are compiled when they are called.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with _compiling_later():
            yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextmanager
def _compiling_later() -> Iterator[None]:
    """Where torch is loaded already."""
    torch = sys.modules.get("torch")
    compiled_now = getattr(torch, "compile", None)
    if torch is None or compiled_now is None:
        yield
        return
    torch.compile = lambda model=None, **options: _compiled_when_called(compiled_now, model, options)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.compile = compiled_now  # type: ignore[attr-defined]


def _compiled_when_called(compiled_now: Callable[..., Any], function: Any, options: dict[str, Any]) -> Any:
    """What torch.compile(function, **options) gives, made at the first call; without a function, a decorator."""
    if function is None:
        return lambda decorated: _compiled_when_called(compiled_now, decorated, options)
    made: list[Callable[..., Any]] = []

    @wraps(function)
    def compiled(*given: Any, **named: Any) -> Any:
        if not made:
            made.append(compiled_now(function, **options))
        return made[0](*given, **named)

    return compiled
