"""What the page says of the files themselves: refused, wrongly named, in colours or kinds that are changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from lora_trainer.data.doctor.dataset import CAPTION, DAMAGED, OTHER, SIZES, TOO_SMALL, UNEVEN, Wrong
from lora_trainer.data.doctor.examination import Examination
from lora_trainer.data.doctor.picture_look import ENDINGS, Look
from lora_trainer.data.doctor.rules import BucketRules, SquareRules
from lora_trainer.data.doctor.strays import WITHOUT_PICTURE
from lora_trainer.report.doctor.finding import HARM, NOTE, REFUSED, Finding, counted, verb
from lora_trainer.report.verdict import without_folders

UNLIKE = "The images are not squares of one size and colour"
REFUSES = "The training refuses to start."
TEXTS = {  # of each kind of refusal: title for one, for many, meaning, cure
    DAMAGED: ("1 file cannot be read", "{n} files cannot be read", REFUSES, "Put whole copies in their place, or take "
              "them out."),
    TOO_SMALL: ("1 picture is too small", "{n} pictures are too small", REFUSES, "Take larger copies, or leave them "
                "out; what else helps is said beside each."),
    SIZES: ("1 picture has a size that does not fit", "{n} pictures have sizes that do not fit", REFUSES, "Do what is "
            "said beside each."),
    UNEVEN: (UNLIKE, UNLIKE, REFUSES, "The command among these makes a data set of them."),
    CAPTION: ("1 caption file cannot be used", "{n} caption files cannot be used", REFUSES, "Do what is said beside "
              "each."),
    OTHER: ("1 thing stops the training", "{n} things stop the training", REFUSES, "Do what is said beside each."),
}  # fmt: skip


def refusal_findings(found: Examination) -> Iterator[Finding]:
    for kind, (one, many, meaning, cure) in TEXTS.items():
        own = [each for each in found.wrong if each.kind == kind]
        if own:
            title = one if len(own) == 1 else many.format(n=f"{len(own):,}")
            shown = tuple(each.number for each in own if each.number is not None and kind != DAMAGED)
            rows = tuple(_row(found, each) for each in own)
            if kind == CAPTION and len(places := _caption_places(found)) == len(own):
                rows, shown = tuple(places.values()), tuple(places)
            yield Finding(REFUSED, title, meaning, cure, rows, shown)


def _caption_places(found: Examination) -> dict[int, tuple[str, str]]:
    """By picture, where its caption cannot be read, or is empty."""
    if found.captions is None:
        return {}
    told = [(number, f"not UTF-8: {place}; save it as UTF-8") for number, place in found.captions.undecodable]
    told += [
        (number, f"{place}; write the caption there, or delete the file") for number, place in found.captions.empty
    ]
    return {number: (found.dataset.entries[number].name, text) for number, text in sorted(told)}


def file_findings(found: Examination) -> Iterator[Finding]:
    """What is no reason to refuse them."""
    yield from _misnamed(found)
    yield from _strays(found)
    yield from _plain(found)
    rules = found.dataset.rules
    if isinstance(rules, SquareRules):
        return  # it refuses what it does not take as it is
    for has, one, many, meaning, cure, level in LOOKS if isinstance(rules, BucketRules) else OF_PAIRS:
        numbers = [number for number in found.pictures if not found.looks[number].problem and has(found.looks[number])]
        if numbers:
            title = f"{counted(len(numbers), found.dataset.word)} {verb(len(numbers), one, many)}"
            rows = tuple((found.dataset.entries[number].name, _kind(found.looks[number])) for number in numbers)
            yield Finding(level, title, meaning, cure, rows, tuple(numbers))


def _is_grey(look: Look) -> bool:
    return look.grey and not look.sixteen_bit


def _is_deep(look: Look) -> bool:
    return look.sixteen_bit


LOOKS: Sequence[tuple[Callable[[Look], bool], str, str, str, str, str]] = (
    (lambda look: look.mode == "CMYK", "is for print (CMYK)", "are for print (CMYK)",
     "The colours are converted to RGB without their profile, and may shift.",
     "Convert to sRGB in a picture editor and look at the colours.",
     HARM),
    (lambda look: look.frames > 1, "moves or has several pages", "move or have several pages",
     "Only the first picture of such a file is trained.", "Save the pictures that matter as files of their own.", HARM),
    (_is_deep, "has 16 bits a channel", "have 16 bits a channel",
     "Brought to 8 bits; no training sees more.", "", NOTE),
    (lambda look: look.transparent, "is partly transparent", "are partly transparent",
     "What is transparent becomes white, unless it serves as a mask.", "If white is not meant, lay it on the ground "
     "that should be learnt.", NOTE),
    (_is_grey, "is grey", "are grey",
     "Trained as RGB; the model learns that such pictures have no colour.", "A tag such as monochrome keeps "
     "that apart from the subject.", NOTE),
    (lambda look: look.orientation != 1, "is turned by its EXIF orientation", "are turned by their EXIF orientation",
     "Trained the right way up, as people see it.", "", NOTE),
)  # fmt: skip


OF_PAIRS = tuple(  # for which 16 bits are refused
    (has, one, many, meaning, "" if has is _is_grey else cure, level)
    for has, one, many, meaning, cure, level in LOOKS
    if has is not _is_deep
)


def kind_counts(found: Examination) -> list[tuple[str, list[tuple[str, int]]]]:
    """Tables of how many files have each kind, colours and so on, without those where all are the same usual thing."""
    looks = [look for look in found.looks if not look.problem]
    tables = [
        ("Kinds of file", Counter(look.kind for look in looks)),
        ("Colours", Counter(_mode(look) for look in looks)),
    ]
    return [(title, counts.most_common()) for title, counts in tables if counts]


def _misnamed(found: Examination) -> Iterator[Finding]:
    entries = found.dataset.entries
    wrong = [
        (number, look)
        for number, look in enumerate(found.looks)
        if look.kind and not look.is_named(entries[number].ending)
    ]
    if wrong:
        rows = tuple((entries[n].name, f"is {look.kind}; these end in {ENDINGS[look.kind][0]}") for n, look in wrong)
        title = f"{counted(len(wrong), 'file')} {verb(len(wrong), 'has', 'have')} the ending of another kind"
        meaning = "The training looks at the content and reads them well; other programs may not."
        yield Finding(NOTE, title, meaning, "Rename them.", rows)


def _strays(found: Examination) -> Iterator[Finding]:
    captions = tuple(row for row in found.dataset.strays if row[1] == WITHOUT_PICTURE)
    pictures = tuple(row for row in found.dataset.strays if row[1] != WITHOUT_PICTURE)
    if pictures:
        title = f"{counted(len(pictures), 'picture')} {verb(len(pictures), 'is', 'are')} not read at all"
        cure = "Move them into a folder that is read, or save them as PNG, JPEG or WebP."
        yield Finding(HARM, title, "They lie in the folder, but no step trains on them.", cure, pictures)
    if captions:
        title = f"{counted(len(captions), 'caption file')} {verb(len(captions), 'belongs', 'belong')} to no picture"
        meaning = "They are not read. Often the picture has another name, and is trained without its caption."
        yield Finding(HARM, title, meaning, "Give picture and caption the same name, or delete them.", captions)


def _plain(found: Examination) -> Iterator[Finding]:
    plain = tuple(number for number in found.pictures if found.looks[number].plain)
    if plain:
        rows = tuple((found.dataset.entries[number].name, "") for number in plain)
        title = f"{counted(len(plain), found.dataset.word)} {verb(len(plain), 'shows', 'show')} one colour alone"
        meaning = "There is nothing to learn from them but that colour."
        yield Finding(HARM, title, meaning, "Take them out.", rows, plain)


def _row(found: Examination, wrong: Wrong) -> tuple[str, str]:
    """The file and the reason, without saying the file's name twice."""
    if wrong.number is None:
        is_command = "python -m " in wrong.sentence
        return "", wrong.sentence if is_command else without_folders(wrong.sentence)
    entry = found.dataset.entries[wrong.number]
    return entry.name, without_folders(wrong.sentence.removeprefix(f"{entry.spoken}: "))


def _kind(look: Look) -> str:
    height, width = look.size_px
    frames = f", {look.frames} pictures" if look.frames > 1 else ""
    return f"{look.kind}, {_mode(look)}, {width} x {height}{frames}"


def _mode(look: Look) -> str:
    words = {"RGB": "RGB", "RGBA": "RGB with transparency", "L": "grey", "LA": "grey with transparency", "CMYK": "CMYK",
             "P": "palette", "1": "black and white"}  # fmt: skip
    return "16 bits a channel" if look.sixteen_bit else words.get(look.mode, look.mode)
