"""What a stop signal does before, within and after the loop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from lora_trainer.engine.signals import Stopped, StopRequest


def test_before_the_loop_a_signal_ends_the_program() -> None:
    with pytest.raises(Stopped) as stopped:
        StopRequest()._remember(signal.SIGTERM, None)
    assert (stopped.value.exit_status, stopped.value.message) == (143, "stopped before the first step")


def test_within_the_loop_it_is_remembered_and_only_a_second_ctrl_c_is_at_once() -> None:
    stop = StopRequest()
    stop.in_loop = True
    stop._remember(signal.SIGTERM, None)
    stop._remember(signal.SIGTERM, None)
    assert stop.signal == signal.SIGTERM
    with pytest.raises(Stopped, match="2"):
        stop._remember(signal.SIGINT, None)


ORPHAN = """
import os, subprocess, sys, time
code = '''
import signal, sys, time
from lora_trainer.engine.signals import StopRequest
stop = StopRequest(); stop.in_loop = True; stop.install()
print("ready", flush=True)
for _ in range(200):
    time.sleep(0.05)
    if stop.signal:
        open(sys.argv[1], "w").write(str(int(stop.signal)))
        break
'''
child = subprocess.Popen([sys.executable, "-c", code, sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print("launched", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process of its parent's end")
def test_the_end_of_the_launcher_is_a_stop_request(tmp_path: object) -> None:
    from pathlib import Path

    told = Path(str(tmp_path)) / "told"
    launcher = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(told)],
        env={**os.environ, "TORCHELASTIC_RUN_ID": "test"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    assert launcher.stdout is not None
    launcher.stdout.readline()
    launcher.kill()
    launcher.communicate()
    deadline = time.monotonic() + 10
    while not (told.exists() and told.read_text(encoding="utf-8")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert told.read_text(encoding="utf-8") == str(int(signal.SIGHUP))
