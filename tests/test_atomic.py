"""Files and folders are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer import atomic


def test_a_file_is_replaced_at_once_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "ä b.txt"
    atomic.write_text(file, "old")
    atomic.write_text(file, "neu ü")
    assert file.read_bytes() == "neu ü".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["ä b.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "kept.bin"
    atomic.write_bytes(file, b"old")
    with pytest.raises(TypeError):
        atomic.write_bytes(file, "text")  # type: ignore[arg-type]
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.bin"]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "a" / "step-1"
    with atomic.staged_folder(final) as staged:
        (staged / "x").write_text("1", encoding="utf-8")
        assert not final.exists()
    assert (final / "x").read_text(encoding="utf-8") == "1"
    with pytest.raises(FileExistsError), atomic.staged_folder(final):
        pass
    with pytest.raises(ZeroDivisionError), atomic.staged_folder(tmp_path / "a" / "step-2") as staged:
        (staged / "x").write_text("2", encoding="utf-8")
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["step-1"]


def test_sweeping_removes_only_what_was_staged(tmp_path: Path) -> None:
    (tmp_path / f"{atomic.STAGED}old").mkdir()
    (tmp_path / f"{atomic.STAGED}file").write_text("x", encoding="utf-8")
    (tmp_path / "mine").mkdir()
    atomic.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    atomic.remove_folder(tmp_path / "mine")
    assert not list(tmp_path.iterdir())
