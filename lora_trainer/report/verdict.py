"""Whether it worked, in a few sentences made of a run's status and curves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_trainer.report.curves import Curve

ALIKE = 0.03  # a change of the loss by less than this share is none
STATES = {"finished": "Finished", "stopped": "Stopped", "failed": "Failed", "running": "Running"}
ADVERSARIAL = (
    "Networks that are trained against each other have losses that say little; look at the samples and the validation."
)
_QUOTED = re.compile(r"([\"'])([^\"'/\\]*?)(?:[A-Za-z]:[\\/]|/)[^\"']*[\\/]([^\"'\\/]+)\1")  # may have spaces in it
_ABSOLUTE = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:[\\/]|\\\\|/)(?:[^\s\"'\\/:]+[\\/])+(?=[^\s\"'\\/:]+)")


@dataclass(frozen=True)
class Figure:
    """A number that stands out on the page."""

    name: str
    value: str
    note: str = ""


def figures_of(
    status: Mapping[str, Any], curves: Mapping[str, Curve], higher_is_better: Mapping[str, bool]
) -> list[Figure]:
    done, total = status.get("step"), status.get("total_steps")
    found = []
    if isinstance(done, int) and isinstance(total, int) and total > 0:
        found.append(Figure("steps", f"{done:,} of {total:,}", f"{done / total:.0%}" if done < total else ""))
    if (loss := curves.get("loss")) is not None and loss.last is not None:
        ends = loss.ends()
        note = "" if is_adversarial(curves) else trend(loss)
        found.append(Figure("loss at the end", number(ends[1] if ends else loss.last), note))
    if not higher_is_better:
        found += [_unjudged(curve) for name, curve in curves.items() if name.startswith("val/") and curve.finite][:2]
    for name, higher in list(higher_is_better.items())[:2]:
        if (curve := curves.get(name)) is not None and (best := curve.best(higher)) is not None:
            assert curve.last is not None
            better = "higher is better" if higher else "lower is better"
            note = f"best {number(best[1])} at step {best[0]:,}; {better}"
            found.append(Figure(_short(name), number(curve.last), note))
    for name, what in (("images_per_second", "images a second"), ("memory_gib", "GiB of memory at most")):
        if (curve := curves.get(name)) is not None and curve.finite:
            values = sorted(value for _, value in curve.finite)
            found.append(Figure(what, number(values[-1] if name == "memory_gib" else values[len(values) // 2])))
    return found


def _unjudged(curve: Curve) -> Figure:
    """Of a number of which it is not known whether higher is better."""
    first, last = curve.finite[0][1], curve.finite[-1][1]
    return Figure(_short(curve.name), number(last), f"at first {number(first)}")


def is_adversarial(curves: Mapping[str, Curve]) -> bool:
    """Whether several networks have a loss of their own."""
    return any(f"{name.removesuffix('/loss')}/grad_norm" in curves for name in curves if name.endswith("/loss"))


def trend(loss: Curve) -> str:
    """How the middle of the last tenth of its values compares with that of the first."""
    if (ends := loss.ends()) is None:
        return ""
    first, last = ends
    change = (last - first) / abs(first) if first else math.inf
    if abs(change) < ALIKE:
        return f"about as at the start ({number(first)})"
    word = "fell" if change < 0 else "rose"
    share = f", {change:+.0%}" if abs(change) < 10 else ""
    return f"{word} from {number(first)}{share}".replace("-", "\N{MINUS SIGN}")


def sentences_of(status: Mapping[str, Any], curves: Mapping[str, Curve]) -> list[str]:
    """What a person should know besides the figures."""
    found = []
    if is_adversarial(curves):
        found.append(ADVERSARIAL)
    elif (loss := curves.get("loss")) is not None and (ends := loss.ends()) and ends[1] > ends[0] * (1 + ALIKE):
        found.append("The loss rose: a lower learning rate may do better.")
    bad = {name: curve.bad for name, curve in curves.items() if curve.bad}
    if bad:
        parts = [f"{count:,} of {len(curves[name].values):,} values of {name}" for name, count in bad.items()]
        found.append(f"Not finite (NaN or infinite), and gaps in the curves: {', '.join(parts)}.")
    if not curves:
        found.append("No numbers were logged before it ended; log_every says after how many steps they are.")
    if status.get("state") == "running":
        found.append("The run was at work when this page was made, or was killed; the same command goes on.")
    return found


def _short(name: str) -> str:
    return f"validation {name[4:]}" if name.startswith("val/") else name.removeprefix("Metrics/")


def number(value: float) -> str:
    """Four significant digits."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def without_folders(text: str) -> str:
    """Of each absolute path in a text only the last part, for what may be shown to others."""
    return _ABSOLUTE.sub(".../", _QUOTED.sub(r"\1\2.../\3\1", text))
