"""When a run is measured on what is held out, and the best values so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_trainer.engine.cadence import NEVER, Cadence


@dataclass(frozen=True)
class Validation:
    """`higher_is_better` has the direction of each number; for `best_by` the best file is kept, for "" none.

    After `patience` measurements without a better `patience_by` the run ends; 0 goes on. `first` measures before the
    first step too. `together` calls the trainer in all processes, which share the work.
    """

    cadence: Cadence = NEVER
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    best_by: str = ""
    patience: int = 0
    patience_by: str = ""
    first: bool = False
    together: bool = False

    @property
    def enabled(self) -> bool:
        """Whether anything is measured, be it at the end alone."""
        return bool(self.higher_is_better)


NO_VALIDATION = Validation()


class BestValues:
    """The best value of each number and the step that gave it. Part of a checkpoint."""

    def __init__(self, higher_is_better: Mapping[str, bool]) -> None:
        self.higher_is_better = dict(higher_is_better)
        self.found: dict[str, tuple[float, int]] = {}
        self.measured = 0  # how often
        self._best_at: dict[str, int] = {}  # by the name, the number of the measurement

    def update(self, values: Mapping[str, float], done: int) -> set[str]:
        """Take the values in and give the names of those that are the best so far; NaN never is."""
        improved = set()
        self.measured += 1
        for name, value in values.items():
            best = self.found.get(name)
            higher = self.higher_is_better.get(name, False)
            if value == value and (best is None or (value > best[0] if higher else value < best[0])):
                self.found[name] = (value, done)
                self._best_at[name] = self.measured
                improved.add(name)
        return improved

    def waited(self, name: str) -> int:
        """How many measurements there were since the best one."""
        return self.measured - self._best_at.get(name, 0)

    def spoken(self, values: Mapping[str, float]) -> str:
        """The values that count for a person, each with the best one."""
        counted = {name: value for name, value in values.items() if name in self.higher_is_better} or values
        return ", ".join(
            f"{name} {value:.4f} (best {self.found[name][0]:.4f} at step {self.found[name][1]})"
            if name in self.found
            else f"{name} {value:.4f}"
            for name, value in counted.items()
        )

    def state_dict(self) -> dict[str, Any]:
        found = {name: list(best) for name, best in self.found.items()}
        return {"found": found, "measured": self.measured, "best_at": dict(self._best_at)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """An empty state forgets everything."""
        self.found = {name: (float(value), int(step)) for name, (value, step) in state.get("found", {}).items()}
        self.measured = int(state.get("measured", 0))
        self._best_at = {name: int(number) for name, number in state.get("best_at", {}).items()}
