"""The plan is that of the command line, its lines come as they are made, and no process outlives whoever asked."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lora_trainer.__main__ import main
from lora_trainer.editor.plan import Plan
from lora_trainer.errors import Refusal
from tests.editor.conftest import Ask, Serve

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_S = 30.0


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    """A preset that is refused before torch is loaded."""
    path = tmp_path / "mein preset ü.json"
    path.write_text('{\n "noise_ofset": 0.1,\n "output_dir": "..."\n}', encoding="utf-8")
    return path


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_the_check_refuses_comes_as_lines(
    wrong: Path, serve: Serve, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(wrong)
    status, answer = ask(server, "plan", {})
    assert status == 200
    told = [json.loads(line) for line in answer.splitlines()]
    assert main(["--preset", str(wrong), "--check"]) == 2
    assert [line["line"] for line in told[:-1]] == capsys.readouterr().err.splitlines()
    assert f"{wrong}:2:2 noise_ofset: unknown key; did you mean noise_offset?" in [line.get("line") for line in told]
    assert told[-1] == {"ended": 2}


@pytest.mark.slow
def test_a_fine_preset_is_planned(write_preset: Callable[..., Path], serve: Serve, ask: Ask, out: Path) -> None:
    status, answer = ask(serve(write_preset()), "plan", {})
    told = [json.loads(line) for line in answer.splitlines()]
    text = "\n".join(line.get("line", "") for line in told)
    assert status == 200
    assert told[-1] == {"ended": 0}, text
    assert re.search(r"^steps +4 an epoch, 8 in all, 2 epochs$", text, re.MULTILINE)
    assert "memory " in text
    assert [path.name for path in out.iterdir()] == ["dataset.html"]


def test_one_plan_at_a_time_and_an_end_to_it(wrong: Path, serve: Serve, ask: Ask) -> None:
    server = serve(wrong)
    plan = server.start_plan()
    with pytest.raises(Refusal, match="a plan is being made already; wait for it or cancel it"):
        server.start_plan()
    assert ask(server, "plan", {})[0] == 422
    assert ask(server, "plan/end", {}) == (200, {})
    assert plan.process.poll() is not None
    assert plan.end() != 0
    server.start_plan().end()


def test_a_plan_ends_when_the_browser_hangs_up(wrong: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_trainer.editor.plan.PLANNING", "tests.editor.long_planning")
    monkeypatch.chdir(REPOSITORY)
    server = serve(wrong)
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    origin = {"Origin": f"http://127.0.0.1:{server.server_port}"}
    connection.request("POST", "/the-token/plan", b"{}", origin)
    wait_until(lambda: server.plan is not None)
    connection.close()
    assert server.plan is not None
    process = server.plan.process
    wait_until(lambda: process.poll() is not None)
    assert process.returncode == 143


def test_a_plan_ends_when_the_editor_is_killed(wrong: Path) -> None:
    command = [sys.executable, "-m", "lora_trainer.editor", str(wrong), "--no-browser"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, encoding="utf-8") as editor:
        assert editor.stdout is not None
        found = re.search(r"http://(127\.0\.0\.1:\d+)(/\S+/)", editor.stdout.readline())
        assert found
        connection = http.client.HTTPConnection(found[1], timeout=5)
        connection.request("POST", f"{found[2]}plan", b"{}", {"Origin": f"http://{found[1]}"})
        wait_until(lambda: bool(psutil.Process(editor.pid).children()))
        (child,) = psutil.Process(editor.pid).children()
        assert "lora_trainer.editor.planning" in child.cmdline()
        editor.kill()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    connection.close()


def test_a_plan_that_does_not_listen_is_killed(wrong: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_trainer.editor.plan.PATIENCE_S", 0.0)
    plan = Plan(wrong)
    assert plan.end() != 0
    assert plan.process.poll() is not None


def test_the_children_of_a_plan_end_with_it() -> None:
    """Such as the workers that load pictures."""
    code = (
        "import subprocess, sys\n"
        "from lora_trainer.editor import planning\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "planning.main = lambda arguments: print(arguments[1], flush=True) or subprocess.Popen(sleep).wait()\n"
        "planning.run('a preset')"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True) as plan:
        assert plan.stdout is not None and plan.stdin is not None
        assert plan.stdout.readline() == "a preset\n"
        wait_until(lambda: bool(psutil.Process(plan.pid).children()))
        (child,) = psutil.Process(plan.pid).children()
        plan.stdin.close()
        assert plan.wait(WAIT_S) == 143
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
