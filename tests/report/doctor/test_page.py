"""The page about a data set: exact numbers, the worst first, whole without a network, with and without charts."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.data.doctor.examination import Examination, examine
from lora_trainer.report.charts import MISSING
from lora_trainer.report.doctor.charts import MOST_POINTS, gathered
from lora_trainer.report.doctor.finding import HARM, NOTE, REFUSED, Finding, share
from lora_trainer.report.doctor.page import MOST_ROWS, all_findings, render, summary_lines
from lora_trainer.report.doctor.pictures import CUT_COLOUR, shaded
from lora_trainer.trainers.folder_doctor import FolderOptions, folder_dataset
from tests.data.doctor.test_duplicates import scene
from tests.report.test_write import EVIL, Page

SMALL = FolderOptions((128, 128), batch=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photos ü" / "2_mychar girl"
    place.mkdir(parents=True)
    return place


def put(
    folder: Path, name: str, image: Image.Image, caption: str | bytes | None = "mychar, hat", **options: Any
) -> None:
    image.save(folder / name, **options)
    if caption is not None:
        content = caption if isinstance(caption, bytes) else caption.encode()
        (folder / name).with_suffix(".txt").write_bytes(content)


def look(folder: Path) -> Examination:
    return examine(folder_dataset(folder.parent, SMALL))


def told(found: Examination) -> dict[str, Finding]:
    return {finding.title: finding for finding in all_findings(found)}


def test_a_good_set_is_fine(folder: Path) -> None:
    for number in range(4):
        put(folder, f"{number}.png", scene(number, (128, 128)), f"mychar, hat, {'sky' if number % 2 else 'sea'}")
    found = look(folder)
    assert told(found) == {}
    page = Page(render(found, [])[0])
    assert "Fine" in page.text and "Nothing is wrong with it." in page.text
    assert "4 pictures to train 8 uses an epoch" in page.text
    assert "128 x 128 4 8 2" in page.text  # pictures, uses, steps
    assert "mychar, hat" in page.text  # in every caption of the folder


def test_every_kind_of_fault_is_found_with_its_number(folder: Path) -> None:
    for number in range(12):
        put(folder, f"{number:02}.jpg", scene(number, (128, 128)), f"mychar, {'hat' if number % 2 else 'sky'}")
    data = (folder / "01.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "named.png").write_bytes((folder / "02.jpg").read_bytes())
    put(folder, "print.jpg", scene(20, (128, 128)).convert("CMYK"))
    put(folder, "near.jpg", scene(3, (128, 128)).resize((512, 512)), quality=60)
    put(folder, "narrow.png", scene(21, (900, 20)))
    put(folder, "cropped.png", scene(22, (158, 96)))
    put(folder, "latin.png", scene(23, (128, 128)), "mychar, café".encode("latin-1"))
    put(folder, "long.png", scene(24, (128, 128)), "mychar, " + ", ".join(["sky", "hat"] * 30))
    put(folder, "slip.png", scene(25, (128, 128)), "my_char, hat")
    put(folder, "bare.png", scene(26, (128, 128)), None)
    (folder / "gone.txt").write_text("mychar")
    titles = {title: finding.level for title, finding in told(look(folder)).items()}
    assert titles == {
        "1 file cannot be read": REFUSED,
        "1 picture is too small": REFUSED,
        "1 caption file cannot be used": REFUSED,
        "1 picture is the copy of another file": HARM,
        "1 picture is nearly the same as another one": HARM,
        "1 caption file belongs to no picture": HARM,
        "1 picture is for print (CMYK)": HARM,
        "3 pictures without a caption": HARM,  # named, cut and bare
        "1 caption is longer than 75 tokens": HARM,
        "1 tag is written in several ways": HARM,
        "1 picture loses more than 10 % of the area": HARM,
        "1 file has the ending of another kind": NOTE,
        "1 caption in 2_mychar girl without “mychar”": NOTE,
        "1 caption has a tag twice": NOTE,
        "1 of 2 buckets has fewer uses than a batch": NOTE,
        **{title: NOTE for title in titles if "share" in title},
    }


def test_files_are_named_with_what_is_the_matter(folder: Path) -> None:
    put(folder, "a.png", scene(0, (128, 128)), ", ".join(["mychar"] * 40))
    put(folder, "b.png", scene(1, (900, 20)), "mychar")
    (folder / "c.jpg").write_bytes(b"nothing")
    put(folder, "d.png", scene(2, (128, 128)), b"\n")
    put(folder, "e.png", scene(3, (128, 128)), b"mychar\n\ncaf\xe9")
    found = told(look(folder))
    name = "2_mychar girl"
    assert found["2 caption files cannot be used"].rows == (
        (f"{name}/d.png", "the file is empty; write the caption there, or delete the file"),
        (f"{name}/e.png", "not UTF-8: line 3, byte 0xe9 at position 11; save it as UTF-8"),
    )
    assert found["1 file cannot be read"].rows == (
        (f"{name}/c.jpg", "not a picture, or of a kind that Pillow does not know"),
    )
    assert found["1 caption is longer than 75 tokens"].rows == (
        (f"{name}/a.png", f"119 tokens; cut away: {', '.join(['mychar'] * 15)}"),
    )
    assert found["1 picture is too small"].rows[0][1].startswith("20 x 900 px (height x width) is too small")


def test_lists_are_cut_with_a_count_and_the_page_stays_small(folder: Path) -> None:
    for number in range(MOST_ROWS + 5):
        (folder / f"{number:03}.png").write_bytes(b"")
    put(folder, "good.png", scene(0, (128, 128)))
    found = look(folder)
    page = render(found, all_findings(found))[0]
    assert "65 files cannot be read" in page
    assert "and 5 more" in Page(page).text
    assert len(page) < 60_000


def test_the_page_is_whole_and_shows_what_people_wrote_as_they_wrote_it(folder: Path) -> None:
    name = EVIL.replace("/", "").replace('"', "").replace("<", "").replace(">", "")
    put(folder, f"{name}.png", scene(0, (128, 128)), f"mychar, {EVIL}")
    put(folder, f"{name} 2.png", scene(0, (128, 128)), f"mychar, {EVIL}")
    put(folder, "third.png", scene(1, (200, 128)), EVIL)
    found = look(folder)
    page = Page(render(found, all_findings(found))[0])
    assert (page.open, page.scripts) == ([], 0)
    assert len(page.ids) == len(set(page.ids))
    starts = {address.partition(",")[0] for address in page.addresses}
    assert {start for start in starts if not start.startswith("#d-")} == {
        "#buckets", "#copies", "#cropping", "data:image/webp;base64",
    }  # fmt: skip
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert EVIL in page.text and f"{name}.png" in page.text


def test_a_copy_is_shown_side_by_side_and_what_is_cut_away_is_shaded(folder: Path) -> None:
    put(folder, "a.png", scene(0, (128, 128)))
    put(folder, "b.png", scene(0, (128, 128)))
    put(folder, "c.png", scene(1, (158, 96)))
    found = look(folder)
    page = Page(render(found, all_findings(found))[0])
    assert sum(address.startswith("data:") for address in page.addresses) >= 3
    assert re.search(r"the same file 2_mychar girl/a.png, 128 x 128, [\d.]+ KiB 2_mychar girl/b.png", page.text)
    placed = found.fits[2]
    assert placed is not None and placed.placement is not None
    assert placed.placement.bucket_px == (64, 128)
    mended = shaded(Image.new("RGB", (158, 96), "black"), placed)
    assert mended.getpixel((79, 48)) == (0, 0, 0)
    assert mended.getpixel((79, 2)) == tuple(int(0.62 * value) for value in CUT_COLOUR)


def test_without_matplotlib_the_page_says_how_to_get_charts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        put(folder, f"{number}.png", scene(number, (128 + number, 128)), "mychar" + ", hat" * number)
    found = look(folder)
    page, remark = render(found, all_findings(found))
    assert remark == "" and page.count("<svg") == 3  # sizes, cropping, tokens
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    bare, remark = render(found, all_findings(found))
    assert remark == MISSING
    assert "<svg" not in bare
    assert "There are no charts on this page" in Page(bare).text
    assert "128 x 128" in Page(bare).text


def test_the_summary_tells_the_verdict_and_what_matters(folder: Path) -> None:
    put(folder, "a.png", scene(0, (128, 128)))
    (folder / "b.png").write_bytes(b"")
    found = look(folder)
    assert summary_lines(found, all_findings(found)) == [
        f"{folder.parent}: 2 pictures. A training would refuse this data for 1 reason. 1 other thing would harm the "
        "training.",
        "  1 file cannot be read",
        "  1 picture without a caption",
    ]


def test_an_empty_folder_is_told(folder: Path) -> None:
    found = look(folder)
    page = Page(render(found, all_findings(found))[0])
    assert "No pictures were found." in page.text
    assert [each.kind for each in found.wrong] == ["other"]


def test_very_many_sizes_are_counted_together() -> None:
    sizes = [(500 + height, 600 + 3 * width) for height in range(40) for width in range(40)]
    found = gathered(sizes)
    assert len(found) <= MOST_POINTS and found.total() == 1600
    assert gathered(sizes[:50]) == dict.fromkeys(sizes[:50], 1)


@pytest.mark.parametrize(
    "value, text", [(0, "0 %"), (0.001, "under 1 %"), (0.126, "13 %"), (0.997, "over 99 %"), (1, "100 %")]
)
def test_shares_are_never_rounded_to_none_or_all(value: float, text: str) -> None:
    assert share(value) == text
