"""A trainer's modules are imported when they are called, once, and without the collector."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lora_trainer.trainers.starts import STARTS


def test_the_collector_rests_during_an_import_and_works_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "asked_module.py").write_text(
        "import gc\nworks = gc.isenabled()\nkept = [[] for _ in range(999)]\n\n"
        "def answer(a, b):\n    return works, a + b\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    start = replace(STARTS["lora"], check="asked_module:answer")
    frozen = gc.get_freeze_count()
    assert start.call("check", 1, 2) == (False, 3)
    assert gc.isenabled()
    after = gc.get_freeze_count()
    assert after > frozen + 999
    assert start.call("check", 3, 4) == (False, 7)
    assert gc.get_freeze_count() <= after, "a second call imports nothing, and what lives then is not kept for ever"
    del sys.modules["asked_module"]


def test_what_is_called_beside_models_is_imported_before_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("building", "planning", "checking"):
        (tmp_path / f"{name}_module.py").write_text("def answer():\n    return 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    places = {"build": "building_module:answer", "plan": "planning_module:answer", "fit": ""}
    start = replace(STARTS["lora"], check="checking_module:answer", **places)
    assert start.call("check") == 1
    assert not {"building_module", "planning_module"} & set(sys.modules)
    assert start.call("build") == 1
    assert {"building_module", "planning_module"} <= set(sys.modules)
    for name in ("building", "planning", "checking"):
        del sys.modules[f"{name}_module"]


def test_it_works_again_after_an_import_that_fails() -> None:
    with pytest.raises(ModuleNotFoundError):
        replace(STARTS["lora"], check="no_such_module_at_all:answer").call("check")
    assert gc.isenabled()


def test_what_refuses_a_preset_does_not_wait_for_the_libraries_of_models() -> None:
    """Seconds that a person with a wrong path would wait."""
    modules = sorted(
        {
            getattr(start, which).partition(":")[0]
            for start in STARTS.values()
            for which in ("check", "settle", "resume", "inspect")
            if getattr(start, which)
        }
    )
    assert len(modules) >= 7
    heavy = "{'diffusers', 'transformers', 'peft', 'spandrel', 'bitsandbytes', 'matplotlib'}"
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"print({heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.strip()) == (0, "set()"), done.stderr
