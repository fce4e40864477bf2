"""Which files are found, in which order, and how large they are on the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, PngImagePlugin

from lora_trainer.engine.run_facts import Thumbnail
from lora_trainer.report import samples
from lora_trainer.report.samples import find_drawn, gallery_of


def draw(file: Path, size: tuple[int, int] = (8, 8), prompt: str = "", step: int | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = PngImagePlugin.PngInfo()
    if prompt:
        trained = f", Training step: {step}" if step else ""
        text.add_text("parameters", f"{prompt}\nNegative prompt: dog\nSteps: 3, Seed: 1{trained}")
    Image.new("RGB", size, (9, 99, 199)).save(file, pnginfo=text)


def opened(thumbnail: Thumbnail | None) -> Image.Image:
    assert thumbnail is not None
    return Image.open(io.BytesIO(base64.b64decode(thumbnail.uri.partition(",")[2])))


def test_epochs_and_steps_stand_in_one_order_and_prompts_are_read(tmp_path: Path) -> None:
    for label, step in (("000000", None), ("e000001", 8), ("000012", 12)):
        draw(tmp_path / "sample" / f"my run_{label}_00_1234567.png", prompt="a cat,\nclose", step=step)
    draw(tmp_path / "sample" / "my run_00_over_time.png")
    draw(tmp_path / "sample" / "another_000012_00_1.png")
    gallery = gallery_of(tmp_path, "my run", [{"step": 5, "epoch": 1}])  # logged every five steps
    assert gallery.moments == ("step 0", "epoch 1 (step 8)", "step 12")
    assert [(each.caption, len(each.pictures), each.sheet) for each in gallery.subjects] == [
        ("a cat,\nclose", 3, False)
    ]


def test_an_epoch_whose_step_no_file_tells_is_placed_by_the_log(tmp_path: Path) -> None:
    for label in ("000000", "e000001", "000009"):
        draw(tmp_path / "sample" / f"r_{label}_00_1.png")
    assert gallery_of(tmp_path, "r", [{"step": 5, "epoch": 1}]).moments == ("step 0", "epoch 1", "step 9")


def test_every_trainers_files_are_found(tmp_path: Path) -> None:
    names = {
        "restoration": ("sample/r_000200.png", "", 200),
        "both": ("sample/r_000200_held_out.png", "held_out", 200),
        "average": ("sample/r_ema_000200_00_5.png", "ema 00_5", 200),
        "upscaler": ("sample/over_time/000_IMG_20240501_00000060.png", "000_IMG_20240501", 60),
        "gan": ("fakes000008.png", "", 8),
        "gan at first": ("fakes_init.png", "", -1),
    }
    for place, (file, subject, order) in names.items():
        draw(tmp_path / place / file)
        (found,) = find_drawn(tmp_path / place, "r", [])
        assert (found.subject, found.order) == (subject, order), place


def test_of_many_some_are_shown_and_it_is_said(tmp_path: Path) -> None:
    for step in range(30):
        for subject in range(10):
            draw(tmp_path / "sample" / f"r_{step:06d}_{subject:02d}_1.png")
    gallery = gallery_of(tmp_path, "r", [])
    assert len(gallery.moments) == samples.MOST_MOMENTS
    assert (gallery.moments[0], gallery.moments[-1]) == ("step 0", "step 29")
    assert len(gallery.subjects) == samples.MOST_SUBJECTS
    assert gallery.left_out == "12 of 30 moments are shown; 8 of 10 subjects are shown"


def test_the_newest_picture_is_the_largest_and_none_is_enlarged(tmp_path: Path) -> None:
    for step in (0, 5):
        draw(tmp_path / "sample" / f"r_{step:06d}_00_1.png", (2000, 1000), "a cat")
        draw(tmp_path / "sample" / f"r_{step:06d}_01_1.png", (20, 10), "a dog")
    cat, dog = gallery_of(tmp_path, "r", []).subjects
    assert [opened(each).size for each in cat.pictures] == [(448, 224), (768, 384)]
    assert [opened(each).size for each in dog.pictures] == [(20, 10), (20, 10)]


def test_what_is_missing_or_broken_leaves_a_gap(tmp_path: Path) -> None:
    draw(tmp_path / "sample" / "r_000000_00_1.png")
    draw(tmp_path / "sample" / "r_000005_01_1.png")
    (tmp_path / "sample" / "r_000005_00_1.png").write_bytes(b"no picture")
    first, second = gallery_of(tmp_path, "r", []).subjects
    assert [each is None for each in first.pictures] == [False, True]
    assert [each is None for each in second.pictures] == [True, False]
    assert gallery_of(tmp_path / "nothing", "r", []).subjects == ()
