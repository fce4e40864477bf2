"""Lists of degraded pictures and their originals: CSV, or parquet with an optional package.

A row has the paths of both pictures, relative to the list's folder or absolute, and where known a prompt and the type
of degradation.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.atomic import write_bytes
from lora_trainer.errors import Refusal, did_you_mean

PARQUET = ".parquet"
ENDINGS = (".csv", PARQUET)
DELIMITERS = ",;\t"  # of which the first that finds the column is it: spreadsheets write what the country does
WRITTEN = ("lq_path", "gt_path", "prompt", "type")


@dataclass(frozen=True)
class Columns:
    """What the columns are called. Only that of the originals must be there."""

    lq: str = "lq_path"
    gt: str = "gt_path"
    prompt: str = "prompt"
    kind: str = "type"


@dataclass(frozen=True)
class ListedPair:
    """One row. `lq` is None where the list has no degraded pictures; `place` says for a message where the row is."""

    lq: Path | None
    gt: Path
    prompt: str
    kind: str
    place: str


def read_pair_list(
    path: Path, columns: Columns | None = None, *, root: Path | None = None, paired: bool = True
) -> list[ListedPair]:
    """The rows in their order; no picture is opened. Raises Refusal that names every row with something wrong.

    Relative paths start from `root`, else from the list's folder. Not `paired`, the degraded pictures are passed over.
    """
    columns, root = columns or Columns(), path.parent if root is None else root
    if path.suffix.lower() not in ENDINGS:
        raise Refusal(f"{path}: the name of a list of pairs ends in {' or '.join(ENDINGS)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refusal(f"{path}: the list of pairs cannot be read ({error.strerror})") from error
    names, rows = (_of_parquet if path.suffix.lower() == PARQUET else _of_csv)(path, data, columns)
    _refuse_columns(path, names, columns)
    problems: list[str] = []
    found = [_listed(root, place, row, columns, paired and columns.lq in names, problems) for place, row in rows]
    if problems:
        raise Refusal(*problems)
    if not found:
        raise Refusal(f"{path}: the list of pairs has no rows")
    return found


def write_pair_list(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Rows of lq_path, gt_path, prompt and type, as the ending says, in one go. Raises Refusal."""
    if path.suffix.lower() not in ENDINGS:
        raise Refusal(f"{path}: the name of a list of pairs ends in {' or '.join(ENDINGS)}")
    write_bytes(path, (_parquet_bytes if path.suffix.lower() == PARQUET else _csv_bytes)(path, rows))


def _csv_bytes(path: Path, rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([WRITTEN, *rows])
    return text.getvalue().encode("utf-8")


def _parquet_bytes(path: Path, rows: Iterable[Sequence[str]]) -> bytes:
    arrow, parquet = _arrow(path)
    columns = list(zip(*rows, strict=True)) or [()] * len(WRITTEN)
    table = arrow.table({name: arrow.array(column, arrow.string()) for name, column in zip(WRITTEN, columns)})  # noqa: B905
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


def _of_csv(path: Path, data: bytes, columns: Columns) -> tuple[Sequence[str], Iterator[tuple[str, Mapping[str, Any]]]]:
    """The names of the columns, and every row with its line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Refusal(f"{path}:{line}: the list of pairs is not UTF-8; save it as CSV UTF-8") from error
    header = io.StringIO(text, newline="").readline().rstrip("\r\n")
    line = 1
    try:
        fits = (mark for mark in DELIMITERS if columns.gt in next(csv.reader([header], delimiter=mark), []))
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=next(fits, ","))
        names, rows = list(reader.fieldnames or []), []
        for row in reader:
            line = reader.line_num
            rows.append((f"{path}:{line}", row))
    except csv.Error as error:
        raise Refusal(f"{path}:{line}: the list of pairs is no CSV from here on ({error})") from error
    return names, iter(rows)


def _of_parquet(
    path: Path, data: bytes, columns: Columns
) -> tuple[Sequence[str], Iterator[tuple[str, Mapping[str, Any]]]]:
    _, parquet = _arrow(path)
    try:
        table = parquet.ParquetFile(io.BytesIO(data))
        names = list(table.schema_arrow.names)
        wanted = [name for name in vars(columns).values() if name in names]
        rows = table.read(columns=wanted).to_pylist()
    except Exception as error:  # damage shows as a dozen kinds, not all of them of pyarrow
        raise Refusal(f"{path}: the list of pairs is no parquet file, or a damaged one ({error})") from error
    return names, ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))


def _arrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise Refusal(
            f"{path}: a parquet list needs a package: pip install lora_trainer[parquet]; a CSV list needs none"
        ) from error
    return pyarrow, pyarrow.parquet


def _refuse_columns(path: Path, names: Sequence[str], columns: Columns) -> None:
    """The originals' column must be there, and another must not be there under a slightly wrong name only."""
    if columns.gt not in names:
        raise Refusal(
            f"{path}: the list of pairs has no column {columns.gt}; it has {', '.join(names) or 'none'}"
            f"{did_you_mean(columns.gt, names)}"
        )
    known = set(vars(columns).values())
    if columns.lq not in names and len(set(names) - known) > 0:
        guess = did_you_mean(columns.lq, set(names) - known)
        if guess:
            raise Refusal(f"{path}: the list of pairs has no column {columns.lq}{guess}")


def _listed(
    root: Path, place: str, row: Mapping[Any, Any], columns: Columns, paired: bool, problems: list[str]
) -> ListedPair:
    if None in row:
        problems.append(f"{place}: more fields than columns; put what has a comma in it into double quotes")
    texts = {}
    for key, name in vars(columns).items():
        value = row.get(name)
        if not isinstance(value, str | None):
            problems.append(f"{place}: {name} is {type(value).__name__}, but must be text")
        texts[key] = value.strip() if isinstance(value, str) else ""
    needed = {"gt": columns.gt, **({"lq": columns.lq} if paired else {})}
    problems += [f"{place}: {name} is empty" for key, name in needed.items() if not texts[key]]
    lq = _file(root, texts["lq"]) if paired else None
    return ListedPair(lq, _file(root, texts["gt"]), texts["prompt"], texts["kind"], place)


def _file(folder: Path, text: str) -> Path:
    """Lists made under Windows separate folders by backslashes, which elsewhere are letters."""
    path = folder / text
    return path if "\\" not in text or path.exists() else folder / text.replace("\\", "/")
