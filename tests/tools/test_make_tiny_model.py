"""The command writes what it says, and refuses what would destroy something."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer.models.detect import detect
from tools.make_tiny_model import main


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ein Ordner ü" / "tiny.safetensors"
    status, printed, error = _run(capsys, "--kind", "sd15", "--single-file", out)
    assert (status, printed, error) == (0, f"{out}: a tiny sd15 base model with seed 0, one file, 1.7 MB\n", "")
    assert detect(out).kind == "sd15"


def test_a_folder_and_a_ckpt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, ckpt = tmp_path / "folder", tmp_path / "file.ckpt"
    status, printed, _ = _run(capsys, "--kind", "sd21-v", "--seed", 3, folder)
    assert (status, printed) == (0, f"{folder}: a tiny sd21-v base model with seed 3, a diffusers folder, 1.9 MB\n")
    assert detect(folder).prediction == "v_prediction"
    assert _run(capsys, "--kind", "sdxl", "--single-file", ckpt)[0] == 0
    assert detect(ckpt).kind is None


def test_what_is_there_stays_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.safetensors"
    arguments = ("--kind", "sd15", "--single-file", out)
    assert _run(capsys, *arguments)[0] == 0
    before = out.read_bytes()
    assert _run(capsys, *arguments, "--seed", 1) == (
        2,
        "",
        f"{out} is there already; give another name, or --force to replace it\n",
    )
    assert out.read_bytes() == before
    assert _run(capsys, *arguments, "--seed", 1, "--force")[0] == 0
    assert out.read_bytes() != before


def test_force_replaces_base_models_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, photos, folder = tmp_path / "a.ckpt", tmp_path / "photos", tmp_path / "folder"
    picture.write_bytes(b"\x89PNG")
    photos.mkdir()
    status, _, error = _run(capsys, "--kind", "sd15", "--single-file", "--force", picture)
    assert (status, picture.read_bytes()) == (2, b"\x89PNG")
    assert "this is a PNG picture" in error
    status, _, error = _run(capsys, "--kind", "sd15", "--force", photos)
    assert (status, photos.is_dir()) == (2, True)
    assert "this folder is no diffusers model" in error
    assert [_run(capsys, "--kind", kind, "--force", folder)[0] for kind in ("sd15", "sdxl")] == [0, 0]
    assert detect(folder).kind == "sdxl"
    (tmp_path / "dir.ckpt").mkdir()
    status, _, error = _run(capsys, "--kind", "sd15", "--single-file", "--force", tmp_path / "dir.ckpt")
    assert (status, error) == (2, f"{tmp_path / 'dir.ckpt'} is a folder, which --force does not replace; delete it\n")


def test_names_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, "--kind", "sd15", "--single-file", tmp_path / "a") == (
        2,
        "",
        f"{tmp_path / 'a'}: a single file must end in .safetensors or .ckpt; change its name\n",
    )
    assert _run(capsys, "--kind", "sd15", tmp_path / "a.ckpt") == (
        2,
        "",
        f"{tmp_path / 'a.ckpt'}: this is the name of a file; add --single-file, or give a folder's name\n",
    )
    with pytest.raises(SystemExit) as stop:
        main(["--kind", "sd99", str(tmp_path / "b")])
    assert stop.value.code == 2
    assert "invalid choice: 'sd99'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
