"""The trainer that docs/extending.md adds step by step is put into a copy of the package and trained."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(PAGE) if found == language]


def with_added_lines(content: str, diff: str) -> str:
    """Each run of + lines goes behind the lines above it, which must be there once."""
    for kept, added in re.findall(r"((?:^ .*\n)+)((?:^\+.*\n)+)", diff, re.MULTILINE):
        place, lines = (re.sub(r"^.", "", part, flags=re.MULTILINE) for part in (kept, added))
        assert content.count(place) == 1, f"the page's lines are not those of the file:\n{place}"
        content = content.replace(place, place + lines)
    return content


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the page's files in it, in a folder with a blank and a letter beyond ASCII."""
    project = tmp_path_factory.mktemp("sixth trainer ü")
    shutil.copytree(ROOT / "lora_trainer", project / "lora_trainer", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "presets" / "photos", project / "presets" / "photos")
    for block in blocks("python"):
        title, _, content = block.partition("\n")
        path = project / title.removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for block in blocks("diff"):
        title, _, diff = block.partition("\n")
        path = project / title.removeprefix("# ")
        path.write_text(with_added_lines(path.read_text(encoding="utf-8"), diff), encoding="utf-8")
    (preset,) = blocks("json")
    (project / "presets" / "mean_colour.json").write_text(preset, encoding="utf-8")
    return project


def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m lora_trainer` in the copy, which comes before an installed package."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "lora_trainer", *words]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, encoding="utf-8", timeout=120)


def arguments_of(mark: str) -> list[str]:
    """The words behind `-m lora_trainer` of the page's only command that holds the mark."""
    (line,) = [line for block in blocks("bash") for line in block.splitlines() if mark in line]
    words = shlex.split(line)
    return words[words.index("lora_trainer") + 1 :]


def test_the_preset_is_checked_by_the_new_class(project: Path) -> None:
    checked = run(project, *arguments_of("--check"))
    assert (checked.returncode, checked.stdout) == (0, "presets/mean_colour.json: fine\n"), checked.stderr

    refused = run(project, *arguments_of("--check"), "--set", "learnin_rate=1", "learning_rate=0.5")
    assert refused.returncode == 2
    assert refused.stderr == "--set learnin_rate=1: unknown key; did you mean learning_rate?\n"


def test_a_dry_run_shows_the_plan_and_writes_nothing(project: Path) -> None:
    planned = run(project, *arguments_of("--dry-run"), "--set", "output_dir=output/dry")
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"^pictures +12, seen as 8 x 8 pixels", planned.stdout, re.MULTILINE)
    assert re.search(r"^steps +6 an epoch, 240 in all, 40 epochs", planned.stdout, re.MULTILINE)
    assert not (project / "output" / "dry").exists()


def test_it_trains_as_the_page_says(project: Path) -> None:
    ran = run(project, *arguments_of("accelerate launch"))
    assert ran.returncode == 0, ran.stdout + ran.stderr

    folder = project / "output" / "mean_colour"
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["step"], status["total_steps"]) == ("finished", 240, 240)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[0]["loss"] == pytest.approx(0.06, abs=0.005)
    assert rows[-1]["loss"] < 0.0001
    assert rows[-1]["largest_error"] < 0.01
    weights = load_file(folder / "mean_colour.safetensors")
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {"weight": (3, 192), "bias": (3,)}


def test_the_blocks_are_code_of_the_project() -> None:
    """The page's files keep the project's own rules of style."""
    for block in blocks("python"):
        title, _, content = block.partition("\n")
        name = title.removeprefix("# ")
        for command in (["check", "--quiet"], ["format", "--check", "--quiet"]):
            words = [sys.executable, "-m", "ruff", *command, "--stdin-filename", name, "-"]
            checked = subprocess.run(words, cwd=ROOT, input=content, capture_output=True, encoding="utf-8")
            assert checked.returncode == 0, f"{name}: {checked.stdout}{checked.stderr}"
