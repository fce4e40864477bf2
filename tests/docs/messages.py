"""What the package can say, read from its source: sentences with a gap wherever something is filled in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lora_trainer"
GAP = "\0"
SAID = {
    "Refusal",
    "PresetError",
    "NonFiniteError",
    "BadPicture",
    "BadLabels",
    "Problem",
    "error",
    "refuse",
    "_Fault",
    "warning",
}
PASSED_ON = {"wrong_key", "wrong_value", "stray"}  # methods that put a place in front of a sentence
LOGGED = re.compile(r"%\.?\d*[sdfgr]")  # what a line of the log is filled with
SPEAKS = re.compile(
    "problem|refus|unknown|bad|broken|wrong|missing|no_such|no_counted|no_index|misfit|foreign|mismatch|differences"
)

Values = Mapping[str, list[str]]


@dataclass(frozen=True)
class Sentence:
    """`place` is file and line."""

    file: str
    line: int
    text: str


@cache
def every_text() -> frozenset[str]:
    """All texts of the source that can be a sentence, of which a quoted message must be one."""
    found: set[str] = set()
    for path in (*PACKAGE.rglob("*.py"), *(ROOT / "tools").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp)):
                found.update(_texts(node, {}))
    return frozenset(LOGGED.sub(GAP, text) for text in found if " " in text.strip())


@cache
def refusals() -> tuple[Sentence, ...]:
    """Each sentence that is raised, collected to be raised, or a warning of the log."""
    return tuple(_refusals())


def _refusals() -> Iterator[Sentence]:
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        seen = set()
        for line, said in _spoken(tree, "checks" if path.stem.endswith("checks") else "", {}):
            text = LOGGED.sub(GAP, said)
            if " " in text.strip() and len(re.findall(r"[a-z]", text)) >= 8 and text not in seen:
                seen.add(text)
                yield Sentence(path.relative_to(PACKAGE).as_posix(), line, text)


def _spoken(scope: ast.AST, name: str, outer: Values) -> Iterator[tuple[int, str]]:
    own, inner = _split(scope)
    values = _assigned(own, outer)
    for node in own:
        line = getattr(node, "lineno", 0)
        for value in _said_by(node, name):
            yield from ((line, text) for text in _texts(value, values))
        if isinstance(node, (ast.Yield, ast.Return)) and node.value is not None:
            yield from ((line, text) for text in _texts(node.value, values) if text.startswith(f"{GAP}: "))
    for function in inner:
        yield from _spoken(function, "checks" if name == "checks" else function.name, values)


def _said_by(node: ast.AST, function: str) -> list[ast.expr]:
    """The expressions of a statement that are sentences for a person."""
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        logged = called == "error" and isinstance(node.func, ast.Attribute)
        if called in SAID and not logged:
            return node.args[:1] if called in ("error", "warning") else node.args
        collected = called in ("append", "extend") and isinstance(node.func, ast.Attribute)
        return node.args if collected and SPEAKS.search(ast.unparse(node.func)) else []
    if isinstance(node, (ast.Yield, ast.Return)) and node.value is not None:
        return [node.value] if SPEAKS.search(function) or (function == "checks" and isinstance(node, ast.Yield)) else []
    target = (
        node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AugAssign) else None
    )
    return [node.value] if target is not None and SPEAKS.search(ast.unparse(target)) else []  # type: ignore[attr-defined]


def _split(scope: ast.AST) -> tuple[list[ast.AST], list[ast.FunctionDef]]:
    """The nodes of a scope without those of the functions in it, and these functions."""
    own: list[ast.AST] = []
    inner: list[ast.FunctionDef] = []
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.FunctionDef):
            inner.append(node)
        else:
            own.append(node)
            waiting.extend(ast.iter_child_nodes(node))
    return own, inner


def _assigned(nodes: list[ast.AST], outer: Values) -> dict[str, list[str]]:
    values = dict(outer)
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            values[name] = [*values.get(name, []), *_texts(node.value, values)][:8]
    return values


def _texts(node: ast.AST, values: Values) -> list[str]:
    """The texts that an expression may be."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _texts(node.left, values) or [GAP], _texts(node.right, values) or [GAP]
        return [a + b for a in left for b in right]
    if isinstance(node, ast.Name):
        return list(values.get(node.id, []))
    if isinstance(node, (ast.GeneratorExp, ast.ListComp)):
        return _texts(node.elt, values)
    return [text for part in _parts(node) for text in _texts(part, values)]


def _parts(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    if isinstance(node, ast.BoolOp):
        return node.values
    if isinstance(node, (ast.List, ast.Tuple)):
        return node.elts
    if isinstance(node, ast.Starred):
        return [node.value]
    passed_on = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PASSED_ON
    return node.args if passed_on else []  # type: ignore[attr-defined]
