"""Lists of pairs: what is read and written, and that what is wrong is named by its row."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lora_trainer.data.pair_list import Columns, read_pair_list, write_pair_list
from lora_trainer.errors import Refusal

ROWS = [
    ("Blur/LQ/ä b.png", "Blur/GT/ä b.png", 'a cat, "asleep"', "Blur"),
    ("Rain/LQ/1.jpg", "Rain/GT/1.png", "", "Rain"),
]


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "liste ü.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_what_was_written_is_read(tmp_path: Path, ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"liste ü{ending}"
    write_pair_list(path, ROWS)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert [(row.lq, row.gt, row.prompt, row.kind) for row in read_pair_list(path)] == [
        (tmp_path / lq, tmp_path / gt, prompt, kind) for lq, gt, prompt, kind in ROWS
    ]


def test_the_text_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_pair_list(path, ROWS)
    assert path.read_bytes().decode() == (
        "lq_path,gt_path,prompt,type\n"
        'Blur/LQ/ä b.png,Blur/GT/ä b.png,"a cat, ""asleep""",Blur\n'
        "Rain/LQ/1.jpg,Rain/GT/1.png,,Rain\n"
    )


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_what_spreadsheets_write(tmp_path: Path, mark: str) -> None:
    lines = [["id", "lq_path", "gt_path", "prompt"], ["7", "a, b;\t.png", "/gt/a.png", "one\ntwo"]]
    text = "\ufeff" + "\r\n".join(mark.join(f'"{field}"' for field in line) for line in lines) + "\r\n"
    (row,) = read_pair_list(written(tmp_path, text))
    assert (row.lq, row.gt, row.prompt, row.kind) == (tmp_path / "a, b;\t.png", Path("/gt/a.png"), "one\ntwo", "")


def test_lines_may_end_as_anywhere(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        (row,) = read_pair_list(written(tmp_path, f"gt_path{end}a.png{end}{end}"))
        assert row.gt == tmp_path / "a.png"


def test_columns_may_have_other_names_and_partners_may_be_missing(tmp_path: Path) -> None:
    path = written(tmp_path, "image,text\na.png,hello\n")
    (row,) = read_pair_list(path, Columns(gt="image", prompt="text"))
    assert (row.lq, row.gt, row.prompt) == (None, tmp_path / "a.png", "hello")


def test_paths_of_windows(tmp_path: Path) -> None:
    (tmp_path / "LQ").mkdir()
    (tmp_path / "LQ" / "a.png").touch()
    (row,) = read_pair_list(written(tmp_path, "lq_path,gt_path\nLQ\\a.png,GT\\a.png\n"))
    assert row.lq is not None
    assert row.lq.is_file()
    assert row.gt == tmp_path / "GT" / "a.png"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "lq_path,gt_paht\na,b\n",
            ["{}: the list of pairs has no column gt_path; it has lq_path, gt_paht; did you mean gt_paht?"],
        ),
        ("LQ_path,gt_path\na,b\n", ["{}: the list of pairs has no column lq_path; did you mean LQ_path?"]),
        ("", ["{}: the list of pairs has no column gt_path; it has none"]),
        ("lq_path,gt_path\n", ["{}: the list of pairs has no rows"]),
        ("lq_path,gt_path,prompt\na,b,c\n,b,c\na\n", ["{}:3: lq_path is empty", "{}:4: gt_path is empty"]),
        (
            "lq_path,gt_path,prompt\na,b,a cat, asleep\n",
            ["{}:2: more fields than columns; put what has a comma in it into double quotes"],
        ),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, text: str, problems: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(Refusal) as caught:
        read_pair_list(path)
    assert list(caught.value.problems) == [problem.replace("{}", str(path)) for problem in problems]


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="the list of pairs is not UTF-8; save it as CSV UTF-8") as caught:
        read_pair_list(written(tmp_path, "lq_path,gt_path\nä,b\n", "latin-1"))
    assert ".csv:2: " in caught.value.problems[0]
    with pytest.raises(Refusal, match=r"liste.txt: the name of a list of pairs ends in .csv or .parquet"):
        read_pair_list(tmp_path / "liste.txt")
    with pytest.raises(Refusal, match=r"liste.txt: the name of a list of pairs ends in .csv or .parquet"):
        write_pair_list(tmp_path / "liste.txt", ROWS)
    with pytest.raises(Refusal, match=r"no.csv: the list of pairs cannot be read \(No such file or directory\)"):
        read_pair_list(tmp_path / "no.csv")


def test_a_quote_that_never_ends(tmp_path: Path) -> None:
    with pytest.raises(
        Refusal, match=r"csv:2: the list of pairs is no CSV from here on \(field larger than field limit"
    ):
        read_pair_list(written(tmp_path, 'lq_path,gt_path\na,b\n"c,d\n' + "e,f\n" * 40000))


def test_a_damaged_parquet_list(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(Refusal, match=r"a.parquet: the list of pairs is no parquet file, or a damaged one"):
        read_pair_list(path)
    parquet.write_table(pyarrow.table({"lq_path": [b"bytes", None], "gt_path": ["a", "b"], "other": [1, 2]}), path)
    with pytest.raises(Refusal) as caught:
        read_pair_list(path)
    assert [problem.removeprefix(str(path)) for problem in caught.value.problems] == [
        ": row 1: lq_path is bytes, but must be text", ": row 1: lq_path is empty", ": row 2: lq_path is empty",
    ]  # fmt: skip


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "a.parquet"
    sentence = r"a.parquet: a parquet list needs a package: pip install lora_trainer\[parquet\]; a CSV list needs none"
    with pytest.raises(Refusal, match=sentence):
        write_pair_list(path, ROWS)
    path.touch()
    with pytest.raises(Refusal, match=sentence):
        read_pair_list(path)
