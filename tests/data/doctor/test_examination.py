"""A data set as a whole: what buckets cut away, pairs that do not fit, squares of a GAN, files that no one reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.doctor.dataset import (
    DAMAGED,
    MASK,
    MEASURED,
    PARTNER,
    SIZES,
    TOO_SMALL,
    Dataset,
    Entry,
    Rules,
    Wrong,
)
from lora_trainer.data.doctor.duplicates import SAME_FILE, Copies
from lora_trainer.data.doctor.examination import Examination, examine
from lora_trainer.data.doctor.fit import fit
from lora_trainer.data.doctor.partners import Stranger
from lora_trainer.data.doctor.rules import BucketRules, PairRules, SquareRules
from lora_trainer.data.doctor.strays import DEEPER, LOOSE, WITHOUT_PICTURE, strays
from lora_trainer.data.pairs import Pair, PairSettings, size_misfits, survey_pairs
from lora_trainer.errors import Refusal
from tests.data.doctor.test_duplicates import scene

BUCKETS = BucketRules((BucketSettings((128, 128), step_px=32),), (4,))


def entry(path: Path, image: Image.Image | bytes, **more: object) -> Entry:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path)
    return Entry(path.name, str(path), path.read_bytes, path.suffix, path.parent.name, **more)  # type: ignore[arg-type]


def examined(rules: Rules, *entries: Entry) -> Examination:
    return examine(Dataset("a set", entries, rules), workers=2)


def test_what_a_bucket_cuts_away_and_how_often_it_is_used(tmp_path: Path) -> None:
    found = examined(
        BUCKETS,
        entry(tmp_path / "a.png", scene(0, (128, 128)), repeats=3),
        entry(tmp_path / "b.png", scene(1, (140, 100)), repeats=2),
        entry(tmp_path / "c.png", scene(2, (128, 128)), use=MEASURED),
    )
    assert found.uses_in() == {(0, (96, 128)): 2, (0, (128, 128)): 3}
    placed = found.fits[1]
    assert placed is not None
    assert placed.lost == pytest.approx(1 - 96 * 128 / (100 * 140))
    assert placed.kept == (2 / 100, 6 / 140, 98 / 100, 134 / 140)
    assert found.wrong == ()


def test_a_picture_that_is_enlarged_is_told_by_how_much() -> None:
    settings = BucketSettings((128, 128), 64, 256, 32, upscale=True)
    assert fit((64, 64), settings).scale == pytest.approx(2.0)
    assert fit((64, 64), settings).is_enlarged
    assert not fit((128, 128), settings).is_enlarged
    small = fit((64, 64), BUCKETS.settings[0])
    assert (small.is_enlarged, small.fill) == (False, 0.25)


def test_what_a_training_refuses_has_its_words(tmp_path: Path) -> None:
    wide = entry(tmp_path / "wide.png", scene(0, (900, 20)))
    empty = entry(tmp_path / "empty.png", b"")
    mask = entry(tmp_path / "mask.png", b"x", use=MASK, of=0)
    found = examined(BUCKETS, wide, empty, mask)
    assert [(each.kind, each.number) for each in found.wrong] == [(TOO_SMALL, 0), (DAMAGED, 1), (DAMAGED, 2)]
    assert found.wrong[0].sentence.startswith(f"{wide.spoken}: 20 x 900 px (height x width) is too small or too narrow")
    assert found.wrong[1].sentence == f"{empty.spoken}: the file is empty"
    assert found.wrong[2].sentence == (
        f"{mask.spoken}: the mask cannot be read (not a picture, or of a kind that Pillow does not know)"
    )


def test_equal_files_are_copies_but_masks_and_small_pictures_that_are_alike_are_not(tmp_path: Path) -> None:
    first = entry(tmp_path / "a.png", scene(0))
    found = examined(
        BUCKETS, first, entry(tmp_path / "b.png", scene(0)), entry(tmp_path / "m.png", scene(0), use=MASK, of=0),
        entry(tmp_path / "c.png", scene(3, (48, 48))), entry(tmp_path / "d.png", scene(3, (48, 50))),
    )  # fmt: skip
    assert found.copies == (Copies(SAME_FILE, (0, 1)),)


def pairs_of(folder: Path, sizes: dict[str, tuple[tuple[int, int], tuple[int, int]]]) -> Examination:
    """GT and LQ of these sizes (width, height), 2x."""
    pairs, entries = [], []
    for number, (name, (gt, lq)) in enumerate(sizes.items()):
        image = scene(number, (400, 300))
        files = folder / "hr" / f"{name}.png", folder / "lr" / f"{name}.png"
        own = entry(files[0], image.resize(gt)), entry(files[1], image.resize(lq), use=PARTNER, of=2 * number)
        entries += own
        pairs.append(Pair(name, str(files[0]), str(files[1]), (0, 0), 1, ""))
    numbers = tuple((2 * number, 2 * number + 1) for number in range(len(pairs)))
    settings = PairSettings((str(folder / "hr"),), (str(folder / "lr"),), scale=2, gt_px=100)
    return examined(PairRules(tuple(pairs), numbers, settings, size_misfits), *entries)


def test_pairs_are_refused_as_the_training_refuses_them(tmp_path: Path) -> None:
    found = pairs_of(
        tmp_path, {"a": ((200, 160), (100, 80)), "b": ((200, 160), (100, 81)), "c": ((200, 90), (100, 45))}
    )
    assert [each.number for each in found.wrong] == [2, 4]
    assert {each.kind for each in found.wrong} == {SIZES}
    settings = PairSettings((str(tmp_path / "hr"),), (str(tmp_path / "lr"),), scale=2, gt_px=100)
    with pytest.raises(Refusal) as refused:
        survey_pairs(settings)
    assert tuple(each.sentence for each in found.wrong) == refused.value.problems


def test_pairs_that_were_mixed_up_are_told_with_what_fits(tmp_path: Path) -> None:
    sizes = dict.fromkeys("abcd", ((200, 160), (100, 80)))
    assert pairs_of(tmp_path, sizes).strangers == ()
    one, other = (tmp_path / "lr" / f"{name}.png" for name in "bc")
    swapped = one.read_bytes(), other.read_bytes()
    other.write_bytes(swapped[0])
    one.write_bytes(swapped[1])
    entries = [
        entry(tmp_path / side / f"{name}.png", (tmp_path / side / f"{name}.png").read_bytes(),
              **({"use": PARTNER, "of": 2 * number} if side == "lr" else {}))
        for number, name in enumerate("abcd") for side in ("hr", "lr")
    ]  # fmt: skip
    found = examined(PairRules((), (), PairSettings(()), size_misfits), *entries)
    assert {(each.number, each.rather) for each in found.strangers} == {(3, 4), (5, 2)}
    assert all(isinstance(each, Stranger) and each.likeness < 0.45 for each in found.strangers)


def test_damage_makes_no_stranger_of_a_partner(tmp_path: Path) -> None:
    """Haze that grows to one side, darkness, and noise; but another picture is told without one that fits."""
    image = scene(0, (320, 240)).resize((160, 120))
    haze = Image.composite(
        image, Image.new("RGB", image.size, (215, 220, 225)), Image.linear_gradient("L").resize((160, 120))
    )
    dark = image.point(lambda value: value // 8)
    grain = np.random.default_rng(0).normal(0, 40, (120, 160, 3))
    noisy = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    entries = []
    for number, partner in enumerate((haze, dark, noisy, scene(7, (160, 120)))):
        entries.append(entry(tmp_path / f"{number}.png", image))
        entries.append(entry(tmp_path / f"lq{number}.png", partner, use=PARTNER, of=2 * number))
    found = examined(PairRules((), (), PairSettings(()), size_misfits), *entries)
    assert [(each.number, each.rather) for each in found.strangers] == [(7, None)]


def test_one_original_with_several_kinds_of_damage_is_no_copy(tmp_path: Path) -> None:
    image = scene(0)
    dark = image.point(lambda value: value // 6)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8))
    entries = [
        entry(tmp_path / "Dark" / "a.png", image), entry(tmp_path / "Dark" / "l.png", dark, use=PARTNER, of=0),
        entry(tmp_path / "Noise" / "a.png", image), entry(tmp_path / "Noise" / "l.png", noise, use=PARTNER, of=2),
        entry(tmp_path / "Dark" / "b.png", image), entry(tmp_path / "Dark" / "k.png", dark, use=PARTNER, of=4),
    ]  # fmt: skip
    assert examined(BUCKETS, *entries).copies == (Copies(SAME_FILE, (0, 4)),)


def test_squares_are_refused_with_the_command_that_mends_them(tmp_path: Path) -> None:
    found = examined(
        SquareRules(tmp_path),
        entry(tmp_path / "a.png", scene(0, (64, 64))),
        entry(tmp_path / "b.png", scene(1, (64, 64))),
        entry(tmp_path / "c.png", scene(2, (64, 48))),
        entry(tmp_path / "d.png", b"no picture"),
    )
    texts = [each.sentence for each in found.wrong]
    assert texts[0] == (
        f"{tmp_path}: d.png: not a picture, or of a kind that Pillow does not know; replace it, or take it out"
    )
    assert texts[1] == f"{tmp_path}: most pictures have 64 x 64 pixels, but not these: c.png (64 x 48)"
    assert "python -m tools.dataset_tool" in texts[2]
    assert all(isinstance(each, Wrong) for each in found.wrong)


def test_files_that_no_one_reads_are_told_with_the_reason(tmp_path: Path) -> None:
    tmp_path = tmp_path / ".cache"  # what lies above does not make it hidden
    folder = tmp_path / "10_cat"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "b.gif", "more/deeper.jpg", "../loose.webp", ".hidden.png"):
        scene(0, (70, 70)).save(folder / name)
    for name in ("a.txt", "b.txt", "gone.txt", "notes.md"):
        (folder / name).write_text("x", encoding="utf-8")
    found = dict(strays([folder], [folder / "a.png"], [".txt"], tmp_path))
    assert found.pop(f"{tmp_path.name}/10_cat/b.gif").startswith(".gif is not among the kinds that are read (.png, ")
    assert found == {
        "10_cat/gone.txt": WITHOUT_PICTURE,
        f"{tmp_path.name}/10_cat/more/deeper.jpg": DEEPER,
        f"{tmp_path.name}/loose.webp": LOOSE,
    }
