"""The HTML of the page about a data set; everything that people wrote is escaped by the template."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from lora_trainer import __version__
from lora_trainer.data.doctor.dataset import MASK, MEASURED, PARTNER, REGULARISATION, TRAINED
from lora_trainer.data.doctor.duplicates import Copies
from lora_trainer.data.doctor.examination import Examination
from lora_trainer.data.doctor.partners import Stranger
from lora_trainer.data.doctor.rules import BucketRules
from lora_trainer.engine.run_facts import Counts, Thumbnail
from lora_trainer.report.doctor.caption_texts import caption_findings, length_summary, shortened
from lora_trainer.report.doctor.charts import draw_all
from lora_trainer.report.doctor.file_findings import file_findings, kind_counts, refusal_findings
from lora_trainer.report.doctor.finding import HARM, LEVELS, NOTE, REFUSED, Finding, Rows, counted, share
from lora_trainer.report.doctor.pictures import thumbnail
from lora_trainer.report.doctor.set_findings import WORDS, crop_summary, lost_shares, set_findings
from lora_trainer.report.page import templates
from lora_trainer.report.verdict import Figure

MOST_ROWS, MOST_SHOWN, MOST_BARS = 60, 6, 40
MOST_ONCE, MOST_MIXED = 200, 6
MOST_CROPPED, MOST_GROUPS, MOST_OF_GROUP, MOST_TAGS = 12, 12, 4, 40
STATES = {REFUSED: ("failed", "Refused"), HARM: ("stopped", "Worth mending"), "": ("finished", "Fine")}


HEADINGS = {REFUSED: "Stops the training", HARM: "Makes the result worse", NOTE: "Worth knowing"}


@dataclass(frozen=True)
class Told:
    """A finding with its small pictures and as many rows as are shown."""

    finding: Finding
    rows: Rows
    more: int
    pictures: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Bucket:
    """`pictures` are files, `uses` draws of an epoch; `batches` what they make."""

    name: str
    pictures: int
    uses: float
    batches: int
    is_few: bool


@dataclass(frozen=True)
class Group:
    """Pictures that are alike, side by side."""

    what: str
    pictures: tuple[Thumbnail, ...]
    more: int


def all_findings(found: Examination) -> list[Finding]:
    """The worst first."""
    each = [*refusal_findings(found), *set_findings(found), *file_findings(found), *caption_findings(found)]
    return sorted(each, key=lambda finding: LEVELS.index(finding.level))


def render(found: Examination, findings: Sequence[Finding]) -> tuple[str, str]:
    """The page, and a remark where it has no charts."""
    charts, remark = draw_all(found)
    captions, rules = found.captions, found.dataset.captions
    has_captions = captions is not None and rules is not None and bool(captions.tokens)
    sections = {
        "buckets": buckets(found),
        "cropping": crop_summary(found),
        "sizes": _size_counts(found),
        "copies": _groups(found),
        "captions": length_summary(captions, rules.limit) if has_captions and captions and rules else "",
    }
    state, word = STATES[findings[0].level if findings and findings[0].level in STATES else ""]
    page = templates().get_template("doctor.html").render(
        title=found.dataset.title,
        state=state,
        state_word=word,
        verdict=verdict(found, findings),
        figures=figures(found),
        rows=found.dataset.rows,
        notes=found.dataset.notes,
        findings=[
            (heading, [_told(found, finding) for finding in findings if finding.level == level])
            for level, heading in HEADINGS.items()
        ],
        linked={name: name.capitalize() for name, content in sections.items() if content},
        **sections,
        charts=charts,
        remark=remark,
        batch=found.dataset.batch,
        cropped=_cropped(found),
        classes=_counts("Classes", found.dataset.classes, MOST_BARS),
        kinds=[table for title, rows in kind_counts(found) for table in _counts(title, rows, MOST_BARS)],
        group_count=len(found.copies) + len(found.strangers),
        tag_findings=captions.tags if captions else None,
        common=_common(found),
        tags=_tags(found),
        shared=_shared(found),
        seconds=found.seconds,
        version=__version__,
        most_bars=MOST_BARS,
        most_once=MOST_ONCE,
    )  # fmt: skip
    return page, remark


def verdict(found: Examination, findings: Sequence[Finding]) -> str:
    """One sentence."""
    refused = sum(finding.level == REFUSED for finding in findings)
    harm = sum(finding.level == HARM for finding in findings)
    if not found.dataset.entries:
        return "No pictures were found."
    if refused:
        also = f" {counted(harm, 'other thing')} would harm the training." if harm else ""
        return f"A training would refuse this data for {counted(refused, 'reason')}.{also}"
    if harm:
        return f"It can be trained on; {counted(harm, 'thing')} would make the result worse."
    return "Nothing is wrong with it."


def summary_lines(found: Examination, findings: Sequence[Finding]) -> list[str]:
    """For a terminal: the verdict, then a line for each finding that matters."""
    lines = [f"{found.dataset.title}: {counted(len(found.pictures), found.dataset.word)}. {verdict(found, findings)}"]
    return [*lines, *(f"  {finding.title}" for finding in findings if finding.level in (REFUSED, HARM))]


def figures(found: Examination) -> list[Figure]:
    entries = found.dataset.entries
    counts = Counter(entry.use for entry in entries)
    uses = sum(entry.repeats for entry in entries if entry.use in (TRAINED, REGULARISATION))
    first = Figure(f"{found.dataset.word}s to train", f"{counts[TRAINED]:,}")
    if uses != counts[TRAINED]:
        first = Figure(first.name, first.value, f"{uses:,g} uses an epoch" if uses < 1e6 else "")
    figures = [first]
    names = ((PARTNER, "partners"), (REGULARISATION, "regularisation"), (MEASURED, "measured"), (MASK, "masks"))
    figures += [Figure(name, f"{counts[use]:,}") for use, name in names if counts[use]]
    if found.captions is not None and found.captions.tokens:
        figures.append(Figure("captions", f"{found.captions.captioned:,}", f"of {len(found.captions.tokens):,}"))
    sizes = [math.prod(look.size_px) / 1e6 for look in found.looks if not look.problem]
    if sizes:
        mean = sum(sizes) / len(sizes)
        figures.append(Figure("megapixels on average", f"{mean:.2f}" if mean >= 0.01 else f"{mean:.4f}"))
    total = sum(look.bytes for look in found.looks)
    return [*figures, Figure("of files", _bytes(total))]


def buckets(found: Examination) -> list[Bucket]:
    """The most used first."""
    rules = found.dataset.rules
    if not isinstance(rules, BucketRules):
        return []
    files: Counter[tuple[int, tuple[int, int]]] = Counter()
    for number in found.pictures:
        fit, entry = found.fits[number], found.dataset.entries[number]
        if fit is not None and fit.placement is not None and entry.use != MEASURED:
            files[entry.group, fit.placement.bucket_px] += 1
    rows = []
    for (group, (height, width)), uses in sorted(found.uses_in().items(), key=lambda item: -item[1]):
        name = f"{width} x {height}" + (f", data set {group + 1}" if len(rules.settings) > 1 else "")
        batch = rules.batches[group]
        rows.append(Bucket(name, files[group, (height, width)], uses, math.ceil(uses / batch), uses < batch))
    return rows


def _told(found: Examination, finding: Finding) -> Told:
    chosen = finding.shown[:MOST_SHOWN]
    text = dict(finding.rows)
    shown = []
    for number in chosen:
        entry = found.dataset.entries[number]
        caption = f"{entry.name}: {text[entry.name]}" if text.get(entry.name) else entry.name
        if (small := thumbnail(entry, shortened(caption))) is not None:
            shown.append(small)
    rows = finding.rows[:MOST_ROWS]
    return Told(finding, tuple(rows), len(finding.rows) - len(rows), tuple(shown))


def _cropped(found: Examination) -> list[Thumbnail]:
    """Those that lose most, with what is cut away."""
    worst = [(number, lost) for number, lost in lost_shares(found).items() if lost > 0.01][:MOST_CROPPED]
    entries = found.dataset.entries
    small = [thumbnail(entries[n], f"{share(lost)}: {entries[n].name}", found.fits[n]) for n, lost in worst]
    return [each for each in small if each is not None]


def _groups(found: Examination) -> list[Group]:
    groups = [_mixed_up(found, stranger) for stranger in found.strangers[:MOST_MIXED]]
    for copies in _some_of_each(found.copies):
        chosen = copies.numbers[:MOST_OF_GROUP]
        small = [thumbnail(found.dataset.entries[number], _spoken(found, number)) for number in chosen]
        shown = tuple(each for each in small if each is not None)
        groups.append(Group(WORDS[copies.kind][0], shown, len(copies.numbers) - len(shown)))
    return groups


def _mixed_up(found: Examination, stranger: Stranger) -> Group:
    """A partner between its original and the one that it fits."""
    entries = found.dataset.entries
    numbers = [entries[stranger.number].of, stranger.number, stranger.rather]
    small = [thumbnail(entries[n], _spoken(found, n)) for n in numbers if n is not None]
    return Group("not the same picture", tuple(each for each in small if each is not None), 0)


def _some_of_each(copies: Sequence[Copies]) -> list[Copies]:
    """As many of each kind, as far as there are, in their order."""
    by_kind: dict[str, list[Copies]] = {}
    for each in copies:
        by_kind.setdefault(each.kind, []).append(each)
    rounds = [each for row in zip_longest(*by_kind.values()) for each in row if each is not None][:MOST_GROUPS]
    return [each for each in copies if each in rounds]


def _spoken(found: Examination, number: int) -> str:
    look, entry = found.looks[number], found.dataset.entries[number]
    height, width = look.size_px
    return f"{entry.name}, {width} x {height}, {_bytes(look.bytes)}"


def _size_counts(found: Examination) -> list[Counts]:
    counted_sizes = Counter(found.looks[number].size_px for number in found.pictures if not found.looks[number].problem)
    rows = [(f"{width} x {height}", count) for (height, width), count in counted_sizes.most_common()]
    return _counts("Sizes, width x height", rows, 12)


def _tags(found: Examination) -> list[Counts]:
    if found.captions is None or found.captions.tags.are_sentences:
        return []
    counts = list(found.captions.tags.counts.items())
    return _counts("Tags, captions that have them", [(shortened(tag), count) for tag, count in counts], MOST_TAGS)


def _shared(found: Examination) -> list[Counts]:
    rows = [(shortened(text), len(numbers)) for text, numbers in found.captions.shared] if found.captions else []
    return _counts("The same caption in many pictures", rows, 12)


def _common(found: Examination) -> Rows:
    """What stands in every caption of each folder."""
    if found.captions is None:
        return ()
    return tuple(
        (each.folder or "the folder", ", ".join(shortened(tag) for tag in each.in_all) or "no tag")
        for each in found.captions.tags.common[:MOST_BARS]
    )


def _counts(title: str, rows: Sequence[tuple[str, int]], most: int) -> list[Counts]:
    if not rows:
        return []
    more = f"; the first {most} of {len(rows):,}" if len(rows) > most else ""
    return [Counts(title + more, tuple(rows[:most]))]


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 100 * size else f"{count / size:,.0f} {unit}"
    return f"{count} bytes"
