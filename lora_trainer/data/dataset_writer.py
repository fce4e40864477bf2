"""Write a data set of pictures into a zip or a folder, which appears when it is complete, or not at all."""

from __future__ import annotations

import contextlib
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lora_trainer.atomic import STAGED, staged_file
from lora_trainer.data.image_listing import LABELS
from lora_trainer.errors import Refusal

DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same pictures make the same bytes
READABLE, UNIX = 0o644 << 16, 3  # on whatever system it is written

Put = Callable[[str, bytes], None]


def refuse_taken(target: Path, source: Path) -> None:
    """Raises Refusal where nothing may be written."""
    if target.suffix and target.suffix.lower() != ".zip" and not target.is_dir():
        raise Refusal(f"{target}: a data set is a zip or a folder; give a name that ends in .zip, or has no ending")
    if target.is_dir() and any(target.iterdir()):
        raise Refusal(f"{target}: the folder is not empty; empty it, or give another --dest")
    if target.is_file():
        raise Refusal(f"{target}: exists already; remove it, or give another --dest")
    if source.is_dir() and source.resolve() in target.resolve().parents:
        raise Refusal(f"{target}: lies in the folder that is read, {source}; give a --dest outside of it")


@contextlib.contextmanager
def new_dataset(target: Path) -> Iterator[Put]:
    """A function that takes a name with `/` and a file; what it took is kept when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f"{STAGED}*"):
        if left.name.endswith(f"-{target.name}"):  # of a run that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    with _new_zip(target) if target.suffix.lower() == ".zip" else _new_folder(target) as put:
        yield put


@contextlib.contextmanager
def _new_zip(target: Path) -> Iterator[Put]:
    """Pictures are stored as they are, because they do not become smaller; labels do."""
    with staged_file(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def put(name: str, data: bytes) -> None:
            info = zipfile.ZipInfo(name, DATE)
            info.external_attr, info.create_system = READABLE, UNIX
            way = zipfile.ZIP_DEFLATED if name == LABELS else zipfile.ZIP_STORED
            archive.writestr(info, data, way)

        yield put


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Put]:
    staged = target.with_name(f"{STAGED}-{target.name}")
    staged.mkdir()

    def put(name: str, data: bytes) -> None:
        file = staged / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)

    try:
        yield put
        if target.is_dir():
            target.rmdir()
        staged.rename(target)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
