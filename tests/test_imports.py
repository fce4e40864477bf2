"""Imports point one way: trainers over engine and data, models and losses over nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lora_trainer"
ROOT = {  # leaf modules, open to all
    "atomic", "draws", "errors", "quick_imports", "restricted_pickle", "torchvision_operators", "user_cache",
}  # fmt: skip
ALLOWED = {
    "trainers": {"engine", "data", "models", "losses", "config", "report", "trainers"},
    "editor": {"__main__", "config", "editor"},
    "report": {"config", "data", "engine", "report"},
    "engine": {"config", "engine"},
    "data": {"config", "data"},
    "models": {"models"},
    "losses": {"losses"},
    "config": {"config"},
}
TRAINERS = ("finetune", "gan", "lora", "restoration", "super_resolution")  # a folder each
BUDGET_LINES = 400


def ours(file: Path) -> set[str]:
    """The modules of the package that a file imports, without `lora_trainer.`; annotations alone count too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lora_trainer":
            names = [node.module] if node.module != "lora_trainer" else [f"lora_trainer.{a.name}" for a in node.names]
        found |= {name.removeprefix("lora_trainer.") for name in names if name.startswith("lora_trainer.")}
    return found - {"__version__"}


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_stands_below_it(folder: str) -> None:
    wrong = {
        f"{file.relative_to(PACKAGE)} imports {module}"
        for file in (PACKAGE / folder).rglob("*.py")
        for module in ours(file)
        if module.split(".")[0] not in ALLOWED[folder] | ROOT
    }
    assert not wrong


def test_the_leaf_modules_import_nothing_of_ours() -> None:
    assert {name: ours(PACKAGE / f"{name}.py") for name in ROOT} == {name: set() for name in ROOT}


def test_no_trainer_imports_another() -> None:
    folders = {path.name for path in (PACKAGE / "trainers").iterdir() if (path / "__init__.py").exists()}
    assert folders == {*TRAINERS, "diffusion"}  # what the diffusion trainers share stands beside them
    for name in folders:
        others = tuple(f"trainers.{other}." for other in TRAINERS if other != name)
        for file in (PACKAGE / "trainers" / name).rglob("*.py"):
            assert not [module for module in ours(file) if f"{module}.".startswith(others)], file


def test_files_keep_their_budget_and_say_what_they_are_for() -> None:
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert text.count("\n") <= BUDGET_LINES, file
        assert ast.get_docstring(ast.parse(text)), file
