"""Nothing in a pickle is called but what is listed."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest

from lora_trainer.restricted_pickle import RestrictedUnpickler, UnknownName


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path, ("somewhere",)


def test_what_is_listed_is_made_and_all_else_is_refused_by_name() -> None:
    data = pickle.dumps({"a": Harmful(), "b": [1, b"2"]})
    module, name = Path.__module__, "Path"
    made = RestrictedUnpickler(io.BytesIO(data), {(module, name): str.upper}).load()
    assert made == {"a": "SOMEWHERE", "b": [1, b"2"]}
    with pytest.raises(UnknownName, match=f"^{module}.{name}$".replace(".", r"\.")):
        RestrictedUnpickler(io.BytesIO(data), {}).load()


def test_nothing_outside_of_the_file_is_looked_for() -> None:
    stream = io.BytesIO(pickle.dumps(None)[:2] + b"X\x01\x00\x00\x00aQ.")
    with pytest.raises(pickle.UnpicklingError, match="it points outside of itself"):
        RestrictedUnpickler(stream, {}).load()
