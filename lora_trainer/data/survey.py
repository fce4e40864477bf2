"""Look at every picture before training: which can be used, how large they are, what they contain, where they go."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from lora_trainer.data.buckets import BucketSettings, Placement, Size, aspect_error, place
from lora_trainer.data.file_ends import digest, is_complete, read_ends
from lora_trainer.data.folders import Picture
from lora_trainer.data.images import BadPicture, header_size_px, opacity, size_px
from lora_trainer.data.survey_memory import Look, SurveyMemory, stamp
from lora_trainer.errors import Refusal

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int], None]  # done, total

NAMED_AT_MOST = 20
WORKERS = min(16, 2 + (os.cpu_count() or 2))
AT_ONCE = 16  # pictures that a worker takes, since handing over costs more than a look that is remembered


@dataclass(frozen=True)
class Sample:
    """One usable picture with everything that the data's order, the caches and the metadata are made from.

    ``size_px`` is (height, width) as seen by a person, after the EXIF orientation. ``digest`` is that of ``file_ends``.
    ``subset`` is the number of its folder. A mask is a file, or with ``alpha_mask`` the picture's own transparency.
    """

    name: str
    path: Path
    folder: str
    repeats: int
    caption: str
    size_px: Size
    digest: str
    placement: Placement
    subset: int = 0
    is_reg: bool = False
    mask: Path | None = None
    alpha_mask: bool = False
    mask_digest: str = ""


@dataclass(frozen=True)
class Summary:
    """What the printed plan and the metadata of the exported file say about the data.

    ``pictures_in`` counts files per folder, ``repeats_of`` is each folder's number. ``uses_in`` counts, per bucket, how
    many pictures an epoch draws from it. ``mean_aspect_error`` is over files.
    """

    pictures: int
    uses: int
    pictures_in: dict[str, int]
    repeats_of: dict[str, int]
    uses_in: dict[Size, int]
    mean_aspect_error: float


def survey(
    pictures: Sequence[Picture],
    settings: BucketSettings,
    *,
    whole: bool = True,
    workers: int = WORKERS,
    on_progress: Progress = lambda done, total: None,
) -> tuple[Sample, ...]:
    """A sample per picture, in their order. Pillow decodes outside Python's lock, so that threads help; what an earlier
    survey has seen of files that have not changed is not looked at again.

    ``whole`` False is for pictures that are decoded before the first step anyway: of those that provably have an end
    only the header is read, the others are decoded. Masks, and pictures whose transparency counts, always are.
    Raises Refusal that names every file that cannot be used (the first 20 of them) with the reason.
    """
    memory = _memory_of([file for picture in pictures for file in (picture.path, picture.mask) if file is not None])
    found = _side_by_side(pictures, lambda each: _inspect(each, settings, memory, whole), memory, workers, on_progress)
    _refuse([result for result in found if isinstance(result, str)])
    return tuple(result for result in found if isinstance(result, Sample))


def decode_all(samples: Sequence[Sample], others: Sequence[Sample] = (), workers: int = WORKERS) -> None:
    """What a survey of headers has left out, for pictures that are measured before the others are encoded.

    Raises Refusal like ``survey``; if one of them is bad, the ``others`` are decoded as well and named with them.
    """

    def problems_of(paths: Sequence[Path]) -> list[str]:
        memory = _memory_of(paths)
        found = _side_by_side(paths, lambda path: _try(path, memory, whole=True), memory, workers)
        return [result for result in found if isinstance(result, str)]

    measured = dict.fromkeys(sample.path for sample in samples)
    problems = problems_of(list(measured))
    if problems:
        problems += problems_of([path for path in dict.fromkeys(each.path for each in others) if path not in measured])
    _refuse(problems)


def named(problems: Sequence[str]) -> list[str]:
    """The first of many, and how many more."""
    more = len(problems) - NAMED_AT_MOST
    return [*problems[:NAMED_AT_MOST], *([f"... and {more} more pictures"] if more > 0 else [])]


def data_fingerprint(samples: Sequence[Sample]) -> str:
    """Equal for two data sets of the same pictures, names, captions and repeats, wherever they lie."""
    facts = [(sample.name, sample.digest, sample.caption, sample.repeats, *_mask_facts(sample)) for sample in samples]
    return blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _mask_facts(sample: Sample) -> tuple[str, ...]:
    if sample.mask is None:
        return ("alpha",) if sample.alpha_mask else ()
    return (sample.mask_digest,)


def summarize(samples: Sequence[Sample]) -> Summary:
    uses_in: Counter[Size] = Counter()
    for sample in samples:
        uses_in[sample.placement.bucket_px] += sample.repeats
    errors = [aspect_error(*sample.size_px, sample.placement) for sample in samples]
    return Summary(
        pictures=len(samples),
        uses=uses_in.total(),
        pictures_in=dict(sorted(Counter(sample.folder for sample in samples).items())),
        repeats_of=dict(sorted((sample.folder, sample.repeats) for sample in samples)),
        uses_in=dict(sorted(uses_in.items())),
        mean_aspect_error=sum(errors) / max(1, len(errors)),
    )


def _memory_of(files: Sequence[Path]) -> SurveyMemory:
    memory = SurveyMemory()
    memory.read({file.absolute().parent for file in files})
    return memory


def _side_by_side(
    items: Sequence[T],
    look: Callable[[T], R],
    memory: SurveyMemory,
    workers: int,
    on_progress: Progress = lambda done, total: None,
) -> list[R]:
    """A look at each item, in their order. What has been seen is remembered, even if someone stops this."""
    parts = [items[at : at + AT_ONCE] for at in range(0, len(items), AT_ONCE)]
    found: list[R] = []
    try:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            try:
                for results in pool.map(lambda part: [look(each) for each in part], parts):
                    found += results
                    on_progress(len(found), len(items))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        memory.write()
    return found


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise Refusal(*named(problems))


def _inspect(picture: Picture, settings: BucketSettings, memory: SurveyMemory, whole: bool) -> Sample | str:
    """The sample, or one sentence that says why there is none."""
    look = _try(picture.path, memory, whole=whole, with_alpha=picture.alpha_mask and picture.mask is None)
    if isinstance(look, str):
        return look
    try:
        placement = place(*look.size_px, settings)
        mask = None if picture.mask is None else _look(picture.mask, memory)
    except ValueError as error:
        return f"{picture.path}: {error}"
    except (OSError, BadPicture) as error:
        return f"{picture.mask}: the mask cannot be read ({error})"
    alpha_mask = picture.alpha_mask and mask is None and bool(look.transparent)
    return Sample(
        picture.name, picture.path, picture.folder, picture.repeats, picture.caption, look.size_px, look.digest,
        placement, picture.subset, picture.is_reg, picture.mask, alpha_mask, mask.digest if mask else "",
    )  # fmt: skip


def _try(path: Path, memory: SurveyMemory, *, whole: bool, with_alpha: bool = False) -> Look | str:
    """The look, or one sentence that says why there is none."""
    try:
        return _look(path, memory, whole=whole, with_alpha=with_alpha)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    except BadPicture as error:
        return f"{path}: {error}"


def _look(path: Path, memory: SurveyMemory, *, whole: bool = True, with_alpha: bool = False) -> Look:
    """Raises OSError and BadPicture."""
    path = path.absolute()
    known = memory.recall(path)
    if known is not None and (known.whole or not whole) and not (with_alpha and known.transparent is None):
        return known
    when = stamp(path)
    look = None if whole or with_alpha else _header_look(path)
    if look is None:
        look = _whole_look(path.read_bytes(), with_alpha)
    memory.keep(path, when, look)
    return look


def _whole_look(data: bytes, with_alpha: bool) -> Look:
    """Decodes everything, so that damage is found."""
    transparent = opacity(data) is not None if with_alpha else None
    return Look(size_px(data), digest(data), transparent)


def _header_look(path: Path) -> Look | None:
    """Of a file that provably has an end. None says that it has to be decoded. Raises OSError."""
    with path.open("rb") as file:
        ends = read_ends(file)
        if not is_complete(file, ends):
            return None
        file.seek(0)
        try:
            found_px = header_size_px(file)
        except BadPicture:
            return None
    name = ends.digest
    return None if name is None else Look(found_px, name, whole=False)
