"""The file is written at once, as it was in everything that was not changed, and only if nobody else changed it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lora_trainer.config.problems import PresetError
from lora_trainer.editor.document import ABSENT, ChangedMeanwhile, Document
from lora_trainer.errors import Refusal


def test_mark_and_line_ends_stay(tmp_path: Path) -> None:
    path = tmp_path / "mein preset ü.json"
    path.write_bytes(b'\xef\xbb\xbf{\r\n\t"a": "\xc3\xa4"\r\n}\r\n')
    document = Document(path)
    content = document.read()
    assert content.text == '{\r\n\t"a": "ä"\r\n}\r\n'
    saved = document.write(content.text.replace("ä", "ö"), content.version)
    assert path.read_bytes() == b'\xef\xbb\xbf{\r\n\t"a": "\xc3\xb6"\r\n}\r\n'
    assert saved == document.read()
    assert list(tmp_path.iterdir()) == [path]


def test_what_another_program_wrote_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("{}", encoding="utf-8")
    document = Document(path)
    version = document.read().version
    path.write_text('{"theirs": 1}', encoding="utf-8")
    with pytest.raises(ChangedMeanwhile, match="was changed by another program since it was read here"):
        document.write('{"ours": 1}', version)
    assert path.read_text(encoding="utf-8") == '{"theirs": 1}'
    document.write('{"ours": 1}', version, over_changes=True)
    assert path.read_text(encoding="utf-8") == '{"ours": 1}'
    path.unlink()
    with pytest.raises(ChangedMeanwhile, match="was removed"):
        document.write("{}", version)


def test_a_new_file(tmp_path: Path) -> None:
    document = Document(tmp_path / "new.json")
    assert (document.read().text, document.read().version) == ("", ABSENT)
    document.write("{}\n", ABSENT)
    assert document.path.read_bytes() == b"{}\n"
    with pytest.raises(ChangedMeanwhile):
        document.write("{}", ABSENT)


@pytest.mark.parametrize("text", ["", "{", '{"a": 1, "a": 2}', '{"a": "\ud800"}'])
def test_what_is_no_json_is_not_saved(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text("{}", encoding="utf-8")
    document = Document(path)
    with pytest.raises(Refusal, match="not saved, because the text is no JSON: "):
        document.write(text, document.read().version)
    assert path.read_bytes() == b"{}"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes and links")
def test_mode_and_link_stay(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text("{}", encoding="utf-8")
    real.chmod(0o600)
    link = tmp_path / "link.json"
    link.symlink_to(real)
    document = Document(link)
    document.write('{"a": 1}', document.read().version)
    assert link.is_symlink()
    assert real.read_text(encoding="utf-8") == '{"a": 1}'
    assert real.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"this is a folder; name the \.json file in it"):
        Document(tmp_path).read()
    with pytest.raises(Refusal, match="cannot be written"):
        Document(tmp_path / "no such folder" / "p.json").write("{}", ABSENT)
