"""Captions that are missing, broken, too long or shared are found, with the place."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.data.doctor.caption_findings import CaptionFindings, FileState, caption_findings, file_state
from lora_trainer.data.doctor.dataset import MASK, CaptionRules, Entry, Written

RULES = CaptionRules(lambda text: (len(text.split()), " ".join(text.split()[5:])), 5)


def findings(folder: Path, **files: bytes | None) -> CaptionFindings:
    """Of pictures of these names with the files beside them; None is no file."""
    entries = []
    for name, content in files.items():
        file = folder / f"{name}.txt"
        if content is not None:
            file.write_bytes(content)
        text = (
            (b"10_cat" if content is None else content).decode("utf-8-sig", errors="ignore").partition("\n")[0].strip()
        )
        written = Written(text, file if content is not None else None, file.name, (text,))
        entries.append(Entry(f"{name}.png", str(folder / f"{name}.png"), bytes, ".png", caption=written))
    return caption_findings(entries, RULES)


def test_each_kind_is_told_apart(tmp_path: Path) -> None:
    found = findings(
        tmp_path, good=b"a cat", none=None, empty=b"", blank=b" , \n", second=b"\na cat",
        latin="a\ncafé".encode("latin-1"), marked=b"\xef\xbb\xbfa cat", long=b"a cat on a red wall today",
    )  # fmt: skip
    assert found.captioned == 3
    assert found.missing == (1,)
    assert found.empty == ((2, "the file is empty"), (3, "the file is empty"), (4, "the first line is empty"))
    assert found.undecodable == ((5, "line 2, byte 0xe9 at position 5"),)
    assert found.marked == (6,)
    assert [(each.number, each.tokens, each.cut) for each in found.long] == [(7, 7, "wall today")]


def test_utf_16_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a cat".encode("utf-16"))
    assert file_state(tmp_path / "a.txt").undecodable == "line 1, byte 0xff at position 0; it looks like UTF-16"
    assert file_state(tmp_path / "none.txt") == FileState("it cannot be read (No such file or directory)")


def test_captions_that_many_pictures_share_are_told(tmp_path: Path) -> None:
    found = findings(tmp_path, a=b"cat", b=b"dog", c=b"cat", d=b"cat", e=b"dog", f=None, g=None, h=None)
    assert found.shared == (("cat", (0, 2, 3)),)


def test_the_longest_way_to_read_a_caption_counts_and_masks_have_none() -> None:
    written = Written("a\nb", None, "", ("one two", "one two three four five six seven"))
    entries = [
        Entry("a.png", "a.png", bytes, ".png", caption=written),
        Entry("b.png", "b.png", bytes, ".png", use=MASK, of=0),
    ]
    found = caption_findings(entries, RULES)
    assert found.tokens == {0: 7}
    assert (found.missing, found.captioned) == ((), 1)  # from a list, where no file is expected
