"""Make a data set for a GAN: fit every picture, several at a time, and write them in their order."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.data.dataset_writer import new_dataset
from lora_trainer.data.image_header import Header, Progress
from lora_trainer.data.image_labels import Label, label_json
from lora_trainer.data.image_listing import LABELS, bad_file, first_of
from lora_trainer.data.image_misfits import misfits
from lora_trainer.data.images import BadPicture
from lora_trainer.data.picture_fitting import Fitting, fitted, header_of
from lora_trainer.data.picture_source import Source, SourcePicture
from lora_trainer.errors import Refusal

PER_FOLDER = 1000
AHEAD = 4  # pictures for each thread that are read before they are written


@dataclass(frozen=True)
class Making:
    """`compress` is that of PNG, 0 to 9. Pictures that cannot be read are left out with `skip_broken`."""

    fitting: Fitting = Fitting()  # noqa: RUF009 - frozen
    compress: int = 1
    threads: int = 1
    skip_broken: bool = False


@dataclass(frozen=True)
class MadeDataset:
    """`broken` are sentences about pictures that were left out (the first 20), of so many."""

    count: int
    header: Header
    labels: int  # how many different ones there are
    enlarged: int
    left_out: int
    broken: Sequence[str]


@dataclass(frozen=True)
class _Made:
    header: Header
    png: bytes
    is_enlarged: bool


def make_dataset(source: Source, target: Path, making: Making, progress: Progress | None = None) -> MadeDataset:
    """Write `00000/img00000000.png` and so on and dataset.json. Raises Refusal, and then nothing is written."""
    pictures = _usable(source, making)
    labels: dict[str, Label] = {}
    broken, enlarged, count = list(source.broken), 0, 0
    first: tuple[str, Header] | None = None
    with new_dataset(target) as put:
        for done, (picture, made) in enumerate(_in_order(pictures, making), 1):
            if progress is not None:
                progress(done, len(pictures))
            if isinstance(made, BadPicture):
                broken.append(bad_file(source.path, picture.name, made))
                continue
            first = first or (picture.name, made.header)
            _refuse_misfits(source.path, dict([first, (picture.name, made.header)]), making.fitting)
            name = f"{count // PER_FOLDER:05d}/img{count:08d}.png"
            put(name, made.png)
            if picture.label is not None:
                labels[name] = picture.label
            count, enlarged = count + 1, enlarged + made.is_enlarged
        if broken and not making.skip_broken:
            raise Refusal(*first_of(broken), f"{source.path}: to leave such pictures out, add --skip-broken")
        if first is None:
            raise Refusal(*first_of(broken), f"{source.path}: no picture is left")
        put(LABELS, label_json(labels, source.classes))
    left_out = len(source.pictures) - count
    return MadeDataset(count, first[1], len(set(labels.values())), enlarged, left_out, first_of(broken))


def _usable(source: Source, making: Making) -> Sequence[SourcePicture]:
    """The pictures whose headers could be read, where headers were. Raises Refusal for what they show to be wrong."""
    if not source.headers and not source.broken:
        return source.pictures
    planned = {name: making.fitting.planned(header) for name, header in source.headers.items()}
    broken = [] if making.skip_broken else list(source.broken)
    if broken:
        broken.append(f"{source.path}: to leave such pictures out, add --skip-broken")
    _refuse_misfits(source.path, planned, making.fitting, broken)
    return [picture for picture in source.pictures if picture.name in source.headers]


def _refuse_misfits(path: Path, headers: Mapping[str, Header], fitting: Fitting, others: Sequence[str] = ()) -> None:
    """Raises Refusal for pictures that make no data set, with the options that do, and for other problems."""
    found = misfits(headers, power_of_two=False)
    problems = [*others, *(f"{path}: {problem}" for problem in found.problems)]
    if found.problems:
        options = re.sub(r"--resolution \d+ ", "", found.options) if fitting.size_px else found.options
        problems.append(f"{path}: to make them alike, add {options}")
    if problems:
        raise Refusal(*problems)


def _in_order(pictures: Sequence[SourcePicture], making: Making) -> Iterator[tuple[SourcePicture, _Made | BadPicture]]:
    """Each picture with what was made of it, or what is wrong with it. Few are held at a time."""
    with ThreadPoolExecutor(making.threads) as pool:  # Pillow works outside of Python's lock
        ahead: deque[tuple[SourcePicture, Future[_Made | BadPicture]]] = deque()
        try:
            for picture in pictures:
                ahead.append((picture, pool.submit(_made, picture, making)))
                if len(ahead) > making.threads * AHEAD:
                    due, result = ahead.popleft()
                    yield due, result.result()
            while ahead:
                due, result = ahead.popleft()
                yield due, result.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _made(picture: SourcePicture, making: Making) -> _Made | BadPicture:
    try:
        raw = picture.read()
        found = header_of(raw)
        image = fitted(raw, making.fitting)
    except BadPicture as error:
        return error
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=making.compress)
    header = Header((image.height, image.width), 1 if image.mode == "L" else 3, False)
    return _Made(header, file.getvalue(), making.fitting.enlarges(found))
