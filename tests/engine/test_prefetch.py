"""Batches come in order and are the same from any number of loader processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lora_trainer.draws import torch_generator
from lora_trainer.engine.phase import Batch
from lora_trainer.engine.prefetch import prefetch
from lora_trainer.errors import Refusal

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Noise:
    """Two micro-batches a step; the step `bad` cannot be read."""

    bad: int = -1

    def __call__(self, step: int) -> list[Batch]:
        if step == self.bad:
            raise Refusal(f"picture of step {step}: damaged")
        rows = [torch.randn(2, 3, generator=torch_generator(1, step, part)) for part in range(2)]
        ids = tuple(torch.full((2,), step + part) for part in range(2))
        return [{"rows": row, "ids": ids, "names": ["a", "b"], "total": 4} for row in rows]


def collected(workers: int, first: int = 0, last: int = 6) -> torch.Tensor:
    steps = [micro["rows"] for micros in prefetch(Noise(), first, last, CPU, workers) for micro in micros]
    return torch.cat(steps)


def test_loader_processes_change_nothing() -> None:
    plain = collected(0)
    assert plain.shape == (24, 3)
    assert torch.equal(collected(2), plain)
    assert torch.equal(collected(0, first=4), plain[16:])


def test_the_global_generator_is_not_touched() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    collected(0)
    list(prefetch(Noise(), 0, 2, CPU, 1))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_refusal_reaches_the_loop_after_the_steps_before_it(workers: int) -> None:
    seen = []
    with pytest.raises(Refusal, match="picture of step 3: damaged"):
        for micros in prefetch(Noise(bad=3), 0, 6, CPU, workers):
            seen.append(int(micros[0]["ids"][0][0]))
    assert seen == [0, 1, 2]


def test_leaving_early_ends_the_thread() -> None:
    import threading

    batches = prefetch(Noise(), 0, 1000, CPU, 0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


DEAF = """
import time
from dataclasses import dataclass

from lora_trainer.engine.signals import StopRequest

@dataclass(frozen=True)
class Slow:
    def __call__(self, step):
        time.sleep(0.02)
        return [{"step": step}]

if __name__ == "__main__":
    import torch
    from lora_trainer.engine.prefetch import prefetch
    stop = StopRequest(); stop.install(); stop.in_loop = True
    print("begins", flush=True)
    for micros in prefetch(Slow(), 0, 1500, torch.device("cpu"), 1):
        if stop.signal:
            late = late + 1 if "late" in globals() else 0
            if late == 100:
                break
    print(int(stop.signal or 0), micros[0]["step"] >= 100, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to a group of processes")
def test_a_signal_to_all_processes_of_the_run_leaves_the_loader_at_work(tmp_path: Path) -> None:
    """As a closed terminal or a batch system sends it, already while the loader's process is starting."""
    script = tmp_path / "slow steps.py"
    script.write_text(DEAF, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.3)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.2)
    said, problems = process.communicate(timeout=60)
    assert said == f"{int(signal.SIGTERM)} True\n", problems
