"""Pictures are read out of a zip or a folder, and a zip that is none of pictures is refused by name."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.data import image_listing
from lora_trainer.data.image_archive import open_archive
from lora_trainer.data.image_listing import entries_digest
from lora_trainer.data.images import BadPicture
from lora_trainer.errors import Refusal

WriteZip = Callable[..., Path]


def png(value: int = 0, size_px: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size_px, size_px), (value, 1, 2)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def write_zip(tmp_path: Path) -> WriteZip:
    def write(files: Mapping[str, bytes], way: int = zipfile.ZIP_STORED, name: str = "bilder ü.zip") -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", way) as archive:
            for place, data in files.items():
                archive.writestr(place, data)
        return tmp_path / name

    return write


def refusal(path: Path) -> str:
    with pytest.raises(Refusal) as caught:
        open_archive(path).listing()
    return str(caught.value)


@pytest.mark.parametrize("way", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read_where_it_is(write_zip: WriteZip, tmp_path: Path, way: int) -> None:
    files = {"b/ö.png": png(1), "a/2.PNG": png(2), "dataset.json": b"{}", "readme.txt": b"", "a/": b""}
    archive = open_archive(write_zip(files, way))
    listing = archive.listing()
    assert [entry.name for entry in listing.pictures] == ["a/2.PNG", "b/ö.png"]
    assert (listing.labels, listing.notes) == ("dataset.json", ())
    assert archive.read("b/ö.png") == png(1)
    assert archive.head("a/2.PNG", 16) == png(2)[:16]
    assert [file.name for file in tmp_path.iterdir()] == ["bilder ü.zip"]


def test_a_folder_is_read_where_it_is(tmp_path: Path) -> None:
    for name in ("b/ö.png", "a/2.PNG", ".hidden/3.png", ".4.png", "notes.txt", "dataset.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    archive = open_archive(tmp_path)
    listing = archive.listing()
    assert [(entry.name, entry.size_bytes) for entry in listing.pictures] == [
        ("a/2.PNG", len(png())),
        ("b/ö.png", len(png())),
    ]
    assert listing.labels == "dataset.json"
    assert archive.read("b/ö.png") == png()
    with pytest.raises(BadPicture, match=r"cannot be read \(No such file"):
        archive.read("c.png")


def test_it_goes_into_other_processes_and_threads(write_zip: WriteZip) -> None:
    files = {f"{number}.png": png(number) for number in range(40)}
    archive = open_archive(write_zip(files))
    archive.listing()
    copy = pickle.loads(pickle.dumps(archive))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(copy.read, [*files] * 5)) == [*files.values()] * 5


def test_what_macos_and_windows_put_into_zips(write_zip: WriteZip) -> None:
    files = {"__MACOSX/set/._1.png": b"x", "set\\1.png": png(), "set/.DS_Store": b"", "set/dataset.json": b"{}"}
    listing = open_archive(write_zip(files)).listing()
    assert [entry.name for entry in listing.pictures] == ["set/1.png"]
    assert listing.labels == "set/dataset.json"
    assert open_archive(write_zip({**files, "other/1.png": png()})).listing().labels == ""


def test_the_digest_is_of_the_content(write_zip: WriteZip) -> None:
    def digest(files: Mapping[str, bytes], name: str = "a.zip") -> str:
        return entries_digest(open_archive(write_zip(files, name=name)).listing().pictures)

    first = digest({"1.png": png(1), "2.png": png(2)})
    assert digest({"2.png": png(2), "1.png": png(1)}, "b.zip") == first
    assert digest({"1.png": png(2), "2.png": png(1)}) != first
    assert digest({"1.png": png(1), "3.png": png(2)}) != first


@pytest.mark.parametrize("name", ["../1.png", "a/../../1.png", "/1.png", "C:/1.png", "..\\1.png", "\\\\host\\1.png"])
def test_names_that_lead_out_are_refused(write_zip: WriteZip, name: str) -> None:
    path = write_zip({name: png(), "2.png": png()})
    assert refusal(path) == (
        f"{path}: {name}: this name leads out of the archive, and no zip of pictures has such; zip them again"
    )


def test_bombs_are_refused(write_zip: WriteZip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_listing, "LARGEST_PICTURE", 2**20)
    path = write_zip({"1.png": bytes(3 * 2**20), "2.png": png()}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**13
    assert refusal(path) == f"{path}: 1.png: 3 MiB when unpacked, and such a file may have 1; take it out"


def test_a_bomb_that_claims_to_be_small_yields_what_it_claims(write_zip: WriteZip) -> None:
    path = write_zip({"1.png": bytes(3 * 2**20), "2.png": png()}, zipfile.ZIP_DEFLATED)
    true_size, claim = struct.pack("<L", 3 * 2**20), struct.pack("<L", 500)
    path.write_bytes(path.read_bytes().replace(true_size, claim))
    archive = open_archive(path)
    assert archive.listing().pictures[0].size_bytes == 500
    with pytest.raises(BadPicture, match=r"damaged in the zip \(Bad CRC-32"):
        archive.read("1.png")


def test_encrypted_entries_are_refused(write_zip: WriteZip) -> None:
    path = write_zip({"1.png": png()})
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    path.write_bytes(data)
    assert refusal(path) == (
        f"{path}: 1.png: encrypted; unpack the zip with its password, and zip the pictures without one"
    )


def test_other_compressions_and_twins_are_refused_together(write_zip: WriteZip) -> None:
    path = write_zip({"a.png": png()}, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b.png", png())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("b.png", png(1))
    assert refusal(path).splitlines() == [
        f"{path}: a.png: compressed by method 14; zip the pictures with store or deflate",
        f"{path}: b.png: there are two entries of this name; zip the pictures again",
    ]
    many = refusal(write_zip({f"../{number}.png": b"" for number in range(25)})).splitlines()
    assert (len(many), many[-1]) == (21, "... and 5 more")


def test_archives_in_archives_are_not_looked_into(write_zip: WriteZip) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("1.png", png())
    path = write_zip({"set.zip": inner.getvalue()})
    assert refusal(path) == f"{path}: there are no pictures but an archive, set.zip; unpack it and give what is in it"
    path = write_zip({"set.zip": inner.getvalue(), "2.png": png()})
    assert open_archive(path).listing().notes == (f"{path}: set.zip: an archive in it is not looked into",)


def test_what_is_no_set_of_pictures(tmp_path: Path, write_zip: WriteZip) -> None:
    empty = tmp_path / "leer"
    empty.mkdir()
    assert refusal(empty).startswith(f"{empty}: there are no pictures (.png, .jpg,")
    text, broken = tmp_path / "a.txt", tmp_path / "a.zip"
    for file in (text, broken):
        file.write_bytes(b"hello")
    assert refusal(text) == f"{text}: neither a folder nor a zip; give one of these"
    assert refusal(broken) == f"{broken}: no zip, or a damaged one; copy it again"
    assert (
        refusal(tmp_path / "b.zip")
        == f"{tmp_path / 'b.zip'}: cannot be read (No such file or directory); correct the path"
    )
    cut = write_zip({f"{number}.png": png() for number in range(9)})
    data = cut.read_bytes()
    cut.write_bytes(data.replace(b"PK\x01\x02", b"PK\x01\x09"))
    assert refusal(cut).startswith(f"{cut}: cannot be opened as a zip (Bad magic number")


def test_damage_is_told_when_it_is_read(write_zip: WriteZip) -> None:
    path = write_zip({"1.png": png()})
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"IDOT"))
    archive = open_archive(path)
    archive.listing()
    with pytest.raises(BadPicture, match=r"Bad CRC-32 for file '1.png'"):
        archive.read("1.png")
    with pytest.raises(BadPicture, match="is not in the zip"):
        archive.read("2.png")


def test_links_that_lead_nowhere_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png())
    (tmp_path / "2.png").symlink_to(tmp_path / "gone.png")
    archive = open_archive(tmp_path)
    assert [entry.name for entry in archive.listing().pictures] == ["1.png", "2.png"]
    with pytest.raises(BadPicture, match="cannot be read"):
        archive.head("2.png", 16)
