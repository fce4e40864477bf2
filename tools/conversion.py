"""What becomes of another program's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Converted:
    """`left` has a reason for each key that was not carried over; `notes` are sentences about what was understood in
    another way, `problems` about what the person has to mend."""

    preset: dict[str, Any]
    left: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
