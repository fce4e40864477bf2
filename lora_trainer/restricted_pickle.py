"""Reading pickles of others: nothing in them is called but what the reader lists by name."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import IO, Any


class UnknownName(pickle.UnpicklingError):
    """The pickle asks for something that is not on the list; the message is its name."""


class RestrictedUnpickler(pickle.Unpickler):
    """`known` maps (module, name) to what stands for it."""

    def __init__(self, file: IO[bytes], known: Mapping[tuple[str, str], Any], *, encoding: str = "ASCII") -> None:
        super().__init__(file, encoding=encoding)
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._known[module, name]
        except KeyError:
            raise UnknownName(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it points outside of itself")
