"""What the page says of the pictures as a set: cropped, enlarged, alone in a bucket, there twice, mixed-up pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from lora_trainer.data.buckets import BucketSettings
from lora_trainer.data.doctor.dataset import MEASURED, REGULARISATION, TRAINED
from lora_trainer.data.doctor.duplicates import ALIKE, MIRRORED, MOST_COMPARED, SAME_FILE, SAME_PIXELS, Copies
from lora_trainer.data.doctor.examination import Examination
from lora_trainer.data.doctor.fit import ENLARGED, MUCH_LOST
from lora_trainer.data.doctor.rules import BucketRules
from lora_trainer.report.doctor.finding import HARM, NOTE, Finding, counted, share, verb

MOVING = "Each step cuts out another part, so that all of it is seen at some time."
WORDS = {  # of each kind of copies: a heading, and what is said of one and of many
    SAME_FILE: ("the same file", "is the copy of another file", "are copies of other files"),
    SAME_PIXELS: ("the same pixels", "has the pixels of another one", "have the pixels of other ones"),
    ALIKE: ("nearly the same", "is nearly the same as another one", "are nearly the same as other ones"),
    MIRRORED: ("mirror images", "is the mirror image of another one", "are mirror images of other ones"),
}


def set_findings(found: Examination) -> Iterator[Finding]:
    yield from _strangers(found)
    yield from _leaks(found)
    yield from _copies(found)
    yield from _enlarged(found)
    yield from _cropped(found)
    yield from _shrunken(found)
    yield from _lonely(found)
    yield from _spare(found)


def lost_shares(found: Examination) -> dict[int, float]:
    """The share of the area that is cut away, by picture, the largest first."""
    lost = {n: fit.lost for n in found.pictures if (fit := found.fits[n]) is not None and fit.placement is not None}
    return dict(sorted(lost.items(), key=lambda item: -item[1]))


def enlargements(found: Examination) -> dict[int, float]:
    """By how much each picture grows that does, the largest first."""
    grown: dict[int, float] = {}
    for number in found.pictures:
        look, fit = found.looks[number], found.fits[number]
        if fit is not None and fit.is_enlarged:
            grown[number] = fit.scale
        elif found.dataset.enlarges and not look.problem and 0 < min(look.size_px) < found.dataset.crop_px:
            grown[number] = found.dataset.crop_px / min(look.size_px)
    return dict(sorted(grown.items(), key=lambda item: -item[1]))


def _names(found: Examination, numbers: tuple[int, ...]) -> str:
    return ", ".join(found.dataset.entries[number].name for number in numbers)


def _copies(found: Examination) -> Iterator[Finding]:
    for kind, (_, one, many) in WORDS.items():
        groups = [copies for each in found.copies if each.kind == kind and (copies := _trained(found, each))]
        if not groups:
            continue
        extra = sum(len(copies.numbers) - 1 for copies in groups)
        rows = tuple((_names(found, copies.numbers), _captions_differ(found, copies)) for copies in groups)
        title = f"{counted(extra, found.dataset.word)} {verb(extra, one, many)}"
        meaning = "Each is learnt as many times more often as there are copies of it, and tends to be memorised."
        cure = "Keep the best one of each group; to weight a picture, use the repeats instead."
        level = HARM
        if kind == MIRRORED:
            meaning = "With flip augmentation they are the same picture; without it, left and right stop mattering."
            level = NOTE
        elif kind == ALIKE:
            cure = "Look at them side by side; keep the sharpest of those that are one picture. Variants may stay."
        yield Finding(level, title, meaning, cure, rows, section="copies")
    if len(found.pictures) > MOST_COMPARED:
        text = f"With more than {MOST_COMPARED:,} pictures, only equal files were looked for."
        yield Finding(NOTE, "Near-duplicates were not looked for", text)


def _trained(found: Examination, copies: Copies) -> Copies | None:
    """Without what is only measured."""
    numbers = tuple(number for number in copies.numbers if found.dataset.entries[number].use != MEASURED)
    return Copies(copies.kind, numbers) if len(numbers) > 1 else None


def _captions_differ(found: Examination, copies: Copies) -> str:
    texts = {entry.caption.text for n in copies.numbers if (entry := found.dataset.entries[n]).caption is not None}
    return "with different captions" if len(texts) > 1 else ""


def _leaks(found: Examination) -> Iterator[Finding]:
    entries = found.dataset.entries
    groups = [
        copies for copies in found.copies if {TRAINED, MEASURED} <= {entries[number].use for number in copies.numbers}
    ]
    if groups:
        numbers = {number for copies in groups for number in copies.numbers if entries[number].use == MEASURED}
        title = f"{counted(len(numbers), 'measured picture')} {verb(len(numbers), 'is', 'are')} trained too"
        meaning = "What is measured on them looks better than it is."
        rows = tuple((_names(found, copies.numbers), WORDS[copies.kind][0]) for copies in groups)
        yield Finding(HARM, title, meaning, "Take them out of one of the two folders.", rows, section="copies")


def _strangers(found: Examination) -> Iterator[Finding]:
    if not found.strangers:
        return
    entries, rows = found.dataset.entries, []
    for each in found.strangers:
        text = f"resembles its original by {max(0.0, each.likeness):.2f} of 1"
        fitting = f", and {entries[each.rather].name} much better" if each.rather is not None else ""
        rows.append((entries[each.number].name, text + fitting))
    count = len(rows)
    title = f"{counted(count, 'pair')} {verb(count, 'does', 'do')} not show the same picture"
    meaning = "The network learns to turn one picture into another one, which blurs everything that it makes."
    cure = "Compare them; files may be named or ordered wrongly on one side."
    yield Finding(HARM, title, meaning, cure, tuple(rows), tuple(each.number for each in found.strangers), "copies")


def _enlarged(found: Examination) -> Iterator[Finding]:
    grown = enlargements(found)
    if grown:
        entries = found.dataset.entries
        rows = tuple((entries[n].name, f"{_size(found, n)}, enlarged {scale:.2f} times") for n, scale in grown.items())
        title = f"{counted(len(grown), 'picture')} {verb(len(grown), 'is', 'are')} enlarged to be trained"
        meaning = f"The model learns their blur; by more than {ENLARGED:.2f} times is counted."
        cure = "Take larger originals, leave the smallest out, or train at a lower resolution."
        if any(each.upscale and each.enabled for each in _settings(found)) and not _fills(found):
            cure += " bucket_no_upscale true leaves them small."
        yield Finding(HARM, title, meaning, cure, rows, tuple(grown), "buckets")


def _cropped(found: Examination) -> Iterator[Finding]:
    lost = {number: value for number, value in lost_shares(found).items() if value > MUCH_LOST}
    if lost:
        rows = tuple((found.dataset.entries[n].name, f"{share(value)} is cut away") for n, value in lost.items())
        loses = verb(len(lost), "loses", "lose")
        title = f"{counted(len(lost), 'picture')} {loses} more than {share(MUCH_LOST)} of the area"
        meaning = "What is cut away at the edges is never trained: a head, a hand, a word of the caption."
        cure = "Crop such pictures yourself, or allow more shapes by smaller bucket_reso_steps."
        if _fills(found):
            cure = "Crop such pictures yourself where it matters."
        if _moves(found):
            yield Finding(NOTE, title, MOVING, cure, rows, section="cropping")
        else:
            yield Finding(HARM, title, meaning, cure, rows, section="cropping")


def _shrunken(found: Examination) -> Iterator[Finding]:
    """Where small pictures stay small."""
    rules = found.dataset.rules
    if not isinstance(rules, BucketRules):
        return
    small = {
        number: fit.fill
        for number in found.pictures
        if (fit := found.fits[number]) is not None and fit.placement is not None and fit.fill < 0.5
    }
    if small:
        ordered = sorted(small.items(), key=lambda item: item[1])
        rows = tuple(
            (found.dataset.entries[n].name, f"{_size(found, n)}, {share(fill)} of the resolution's area")
            for n, fill in ordered
        )
        title = f"{counted(len(small), 'picture')} {verb(len(small), 'has', 'have')} less than half of the pixels"
        meaning = "What is trained smaller than the rest is learnt with fewer details."
        cure = "Take larger originals where there are any."
        yield Finding(NOTE, title, meaning, cure, rows, tuple(n for n, _ in ordered), "sizes")


def _lonely(found: Examination) -> Iterator[Finding]:
    rules = found.dataset.rules
    if not isinstance(rules, BucketRules):
        return
    uses = found.uses_in()
    few = {key: count for key, count in uses.items() if count < rules.batches[key[0]]}
    if not few:
        return
    rows = tuple(
        (f"{width} x {height}", f"{count:g} of {rules.batches[group]}")
        for (group, (height, width)), count in few.items()
    )
    title = f"{len(few):,} of {counted(len(uses), 'bucket')} {verb(len(few), 'has', 'have')} fewer uses than a batch"
    meaning = (
        "Their batches are filled up with the same pictures again."
        if rules.fills
        else "Their batches are smaller, so that each of their pictures counts more in its step."
    )
    cure = "Crop pictures of rare shapes to common ones, use larger steps between buckets, or a smaller batch."
    yield Finding(NOTE, title, meaning, cure, rows, section="buckets")


def _size(found: Examination, number: int) -> str:
    height, width = found.looks[number].size_px
    return f"{width} x {height}"


def _settings(found: Examination) -> Sequence[BucketSettings]:
    return found.dataset.rules.settings if isinstance(found.dataset.rules, BucketRules) else ()


def _fills(found: Examination) -> bool:
    return isinstance(found.dataset.rules, BucketRules) and found.dataset.rules.fills


def _moves(found: Examination) -> bool:
    return isinstance(found.dataset.rules, BucketRules) and found.dataset.rules.moves


def _spare(found: Examination) -> Iterator[Finding]:
    spare = [entry for entry in found.dataset.entries if entry.use == REGULARISATION and not entry.repeats]
    if spare:
        title = f"{counted(len(spare), 'regularisation picture')} {verb(len(spare), 'is', 'are')} not needed"
        meaning = "An epoch uses as many of them as of the trained ones, the first by name."
        yield Finding(NOTE, title, meaning, "", tuple((entry.name, "") for entry in spare))


def crop_summary(found: Examination) -> str:
    lost = list(lost_shares(found).values())
    if not lost:
        return ""
    if not lost[0]:
        return "Nothing is cut away."
    half = f"at most {share(median(lost))}" if median(lost) else "nothing"
    moves = f" {MOVING}" if _moves(found) else ""
    return (
        f"On average {share(sum(lost) / len(lost))} of a picture's area is cut away. Half of the pictures lose {half}, "
        f"the worst loses {share(lost[0])}.{moves}"
    )
