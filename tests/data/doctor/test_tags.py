"""Tags are counted; rare ones, slips of the pen, and the word that all captions share are found."""

from __future__ import annotations

from lora_trainer.data.doctor.dataset import Entry
from lora_trainer.data.doctor.tags import Common, Spellings, TagFindings, spellings, tag_findings


def findings(*captions: str, folders: tuple[str, ...] = ()) -> TagFindings:
    entries = [
        Entry(f"{n}.png", f"{n}.png", bytes, ".png", folder=folders[n] if folders else "10_cat")
        for n in range(len(captions))
    ]
    texts: dict[str, list[int]] = {}
    for number, caption in enumerate(captions):
        texts.setdefault(caption, []).append(number)
    return tag_findings(entries, texts, ",")


def test_a_tag_counts_once_in_a_caption() -> None:
    found = findings("cat, hat, hat", "cat, hat", "cat, hat, a red ball")
    assert dict(found.counts) == {"cat": 3, "hat": 3, "a red ball": 1}
    assert found.once == ("a red ball",)
    assert found.doubled == ((0, "hat"),)
    assert round(found.per_caption, 2) == 2.33


def test_equal_captions_count_for_each_picture() -> None:
    assert dict(findings("cat, hat", "cat, hat", "cat").counts) == {"cat": 3, "hat": 2}


def test_sentences_have_no_tags() -> None:
    found = findings("A cat sits on a wall, purring", "Two dogs, one of them brown", "The sea at night")
    assert found.are_sentences
    assert (found.once, found.spellings, found.common) == ((), (), ())


def test_spellings_that_mean_the_same_are_put_together() -> None:
    assert spellings({"blue hair": 7, "blue_hair": 2, "Blue  Hair": 1, "hat": 3, "blue-hair": 1}) == [
        Spellings((("blue hair", 7), ("blue_hair", 2), ("Blue  Hair", 1), ("blue-hair", 1)), False)
    ]
    assert spellings({r"saber \(fate\)": 4, "saber (fate)": 1}) == [
        Spellings(((r"saber \(fate\)", 4), ("saber (fate)", 1)), False)
    ]


def test_a_slip_is_rare_and_one_letter_off() -> None:
    counts = {"looking at viewer": 40, "lookin at viewer": 1, "smile": 20, "simle": 1, "smils": 1}
    assert {each.tags[1][0] for each in spellings(counts)} == {"lookin at viewer", "simle", "smils"}
    assert all(each.is_typo for each in spellings(counts))


def test_what_may_be_meant_is_no_slip() -> None:
    counts = {"2girls": 20, "3girls": 2, "boots": 30, "boot": 3, "hat": 30, "cat": 2, "sword": 6, "sworn": 5}
    assert spellings(counts) == []


def test_the_word_that_calls_the_subject_is_in_every_caption_of_its_folder() -> None:
    found = findings(
        "mychar, hat", "mychar, sky", "hat, sky, dog", "dog, sky", folders=("1_mychar", "1_mychar", "1_dog", "1_dog")
    )
    assert found.common == (Common("1_mychar", 2, ("mychar",)), Common("1_dog", 2, ("sky", "dog")))


def test_captions_that_lack_it_are_told() -> None:
    found = findings(*["mychar, hat"] * 4, *["mychar, sky"] * 5, "sky, hat")
    assert found.common == (Common("10_cat", 10, (), "mychar", (9,)),)


def test_every_line_counts() -> None:
    assert dict(findings("cat, hat\ncat, sky", "cat").counts) == {"cat": 2, "hat": 1, "sky": 1}
