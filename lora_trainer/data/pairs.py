"""The pictures of super-resolution: high-resolution files and, where given, their low-resolution partners.

Everything that is wrong with them is found before the training, and named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import PIL
from PIL import Image

from lora_trainer.data.buckets import Size
from lora_trainer.data.folders import EXTENSIONS
from lora_trainer.data.images import SIXTEEN_BIT, BadPicture, Pixels, decode, open_header
from lora_trainer.data.lmdb_folder import LmdbFolder, listed_names
from lora_trainer.data.pixel_file import PixelFolder, Unfinished, default_folder
from lora_trainer.errors import Refusal

ENDINGS = (*EXTENSIONS, ".tif", ".tiff")
NAMED_AT_MOST = 20
LEAST_CROPS = 1000  # of an epoch, which dataset_enlarge_ratio auto brings about
WORKERS = 4
PNG_DEPTH_AT, TIFF_DEPTH = 24, 258


@dataclass(frozen=True)
class PairSettings:
    """Where the pictures are and what they must be. `dataroot_lq` is empty where the low resolution is made.

    `gt_px` is the side of the crop that must fit in; `enlarge` how often an epoch draws each, 0 for as often as needed.
    With `cache_gib`, what has to be decoded is kept for `pair_store`, so that it is decoded once.
    """

    dataroot_gt: Sequence[str]
    dataroot_lq: Sequence[str] = ()
    meta_info: Sequence[str] = ()
    filename_tmpl: str = "{}"
    io_backend: str = "disk"
    scale: int = 1
    gt_px: int = 1
    enlarge: int = 0
    cache_gib: float = 0.0
    cache_folder: str = ""


@dataclass(frozen=True)
class Pair:
    """`gt` and `lq` are a file, or the key of a record in the LMDB folder `gt_store` or `lq_store`.

    `gt_px` is (height, width) as a person sees it. `digest` is of the bytes of both files.
    """

    name: str
    gt: str
    lq: str | None
    gt_px: Size
    repeats: int
    digest: str
    gt_store: str = ""
    lq_store: str = ""

    @property
    def sides(self) -> tuple[str, ...]:
        """What there is to read."""
        return ("gt",) if self.lq is None else ("gt", "lq")

    def read(self, which: str) -> Pixels:
        """The pixels of "gt" or "lq", (h, w, 3). Raises BadPicture."""
        return decode(self.bytes_of(which))

    def bytes_of(self, which: str) -> bytes:
        """The file as it is. Raises BadPicture."""
        place, store = self._where(which)
        return LmdbFolder(Path(store)).read(place) if store else _file_bytes(Path(place))

    def spoken(self, which: str) -> str:
        """The file or record, for a message."""
        return ": ".join(word for word in reversed(self._where(which)) if word)

    def _where(self, which: str) -> tuple[str, str]:
        return (self.gt, self.gt_store) if which == "gt" else (self.lq or "", self.lq_store)


@dataclass(frozen=True)
class PairSet:
    """The usable pictures, and what there is to say about them."""

    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairFacts:
    """What decoding one pair showed. Both sizes are (height, width)."""

    gt_px: Size
    lq_px: Size
    grey: bool
    transparent: bool


Misfits = Callable[[Pair, PairFacts, PairSettings], Iterable[str]]  # what is wrong with the sizes of a pair


def survey_pairs(settings: PairSettings) -> PairSet:
    """Find, match and decode every picture. Raises Refusal that names each file that cannot be used (the first 20)."""
    found, problems = matched_pairs(settings)
    return examine_pairs(found, problems, settings, size_misfits)


def examine_pairs(found: Sequence[Pair], problems: list[str], settings: PairSettings, misfits: Misfits) -> PairSet:
    """Decode every picture that was found. Raises Refusal with the problems so far and those that this shows."""
    with ThreadPoolExecutor(WORKERS) as pool:
        opened = list(pool.map(_opened, found))
    for each in opened:
        problems += each[1]
    pairs = [pair for pair, wrong, _ in opened if not wrong]
    folder = PixelFolder(Path(settings.cache_folder or default_folder()), 0 if problems else settings.cache_gib)
    facts, damaged = _looked_at(pairs, folder, [areas for _, wrong, areas in opened if not wrong])
    problems += damaged
    done = [replace(pair, gt_px=fact.gt_px) for pair, fact in zip(pairs, facts, strict=True) if fact is not None]
    known = [fact for fact in facts if fact is not None]
    for pair, fact in zip(done, known, strict=True):
        problems += misfits(pair, fact, settings)
    if problems:
        more = len(problems) - NAMED_AT_MOST
        raise Refusal(*problems[:NAMED_AT_MOST], *([f"... and {more} more"] if more > 0 else []))
    if not done:
        raise Refusal(f"{', '.join(settings.dataroot_gt)}: there are no pictures ({', '.join(ENDINGS)})")
    repeats = settings.enlarge or -(-LEAST_CROPS // len(done))
    return PairSet(tuple(replace(pair, repeats=repeats) for pair in done), tuple(_notes(done, known)))


def picture_files(folder: Path) -> dict[str, Path]:
    """The picture files of a folder and those in it by their path below it with `/`, sorted; hidden ones are left out.

    Raises Refusal when there are none.
    """
    files = _below(folder)
    if not files:
        raise Refusal(f"{folder}: there are no pictures ({', '.join(ENDINGS)})")
    return files


def pairs_fingerprint(pairs: Sequence[Pair]) -> str:
    """Equal for two sets of the same pictures, names and repeats, wherever they lie."""
    facts = [(pair.name, pair.digest, pair.repeats) for pair in pairs]
    return blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def pixels_key(pairs: Sequence[Pair]) -> str:
    """Equal for two sets that decode to the same pixels in the same order."""
    facts = [PIL.__version__, *((pair.digest, len(pair.sides)) for pair in pairs)]
    return blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def validation_pairs(pairs: PairSet, scale: int) -> Iterator[tuple[str, Pixels, Pixels | None]]:
    """Name, whole high-resolution picture cropped to a multiple of the scale, and the low one where there is one."""
    for pair in pairs.pairs:
        gt = pair.read("gt")
        height, width = (side // scale * scale for side in gt.shape[:2])
        yield pair.name, gt[:height, :width], pair.read("lq") if pair.lq is not None else None


def matched_pairs(settings: PairSettings) -> tuple[list[Pair], list[str]]:
    """Every high-resolution picture with its partner, not yet opened, and what is missing on either side.

    Raises Refusal for what cannot be matched at all.
    """
    roots, lq_roots = settings.dataroot_gt, settings.dataroot_lq
    if lq_roots and len(lq_roots) != len(roots):
        raise Refusal(f"dataroot_lq: {len(lq_roots)} folders for the {len(roots)} of dataroot_gt; give one for each")
    found: list[Pair] = []
    problems: list[str] = []
    listed = _listed(settings.meta_info, problems)
    unseen = dict(listed or {})
    for root, lq_root in zip(roots, lq_roots or [""] * len(roots), strict=True):
        gt = _pictures(root, settings.io_backend, problems)
        for stem in gt:
            unseen.pop(stem, None)
        if listed is not None:
            gt = {stem: place for stem, place in gt.items() if stem in listed}
        store = root if _is_lmdb(root, settings.io_backend) else ""
        here = [Pair(stem, place, None, (0, 0), 1, "", store) for stem, place in gt.items()]
        found += _with_partners(here, root, lq_root, settings, problems) if lq_root else here
    problems += [f"{line}: listed in meta_info, but not in {', '.join(roots)}" for line in unseen.values()]
    return found, problems


def _with_partners(
    pairs: Sequence[Pair], root: str, lq_root: str, settings: PairSettings, problems: list[str]
) -> Iterator[Pair]:
    """The pairs of one folder whose low resolution is there."""
    lq = _pictures(lq_root, settings.io_backend, problems)
    store = lq_root if _is_lmdb(lq_root, settings.io_backend) else ""
    for pair in pairs:
        folder, slash, name = pair.name.rpartition("/")
        candidates = (f"{folder}{slash}{settings.filename_tmpl.replace('{}', name)}", f"{pair.name}x{settings.scale}")
        partner = next((lq.pop(stem) for stem in candidates if stem in lq), None)
        if partner is None:
            problems.append(f"{pair.spoken('gt')}: has no partner in {lq_root}")
        else:
            yield replace(pair, lq=partner, lq_store=store)
    if not settings.meta_info:
        problems += [f"{place}: has no partner in {root}" for place in lq.values()]


def _is_lmdb(root: str, backend: str) -> bool:
    return backend == "lmdb" or Path(root).suffix == ".lmdb"


def _pictures(root: str, backend: str, problems: list[str]) -> dict[str, str]:
    """Place of every picture below a folder by its path without ending, in the order of these on every system."""
    folder = Path(root)
    if _is_lmdb(root, backend):
        return {name: name for name in LmdbFolder(folder).names()}
    if not folder.is_dir():
        problems.append(f"{root}: there is no such folder")
        return {}
    found: dict[str, str] = {}
    for name, file in _below(folder).items():
        stem = Path(name).with_suffix("").as_posix()
        if stem in found:
            problems.append(f"{file}: there is another picture of that name, {found[stem]}; rename one of them")
        found[stem] = str(file)
    return dict(sorted(found.items()))


def _below(folder: Path) -> dict[str, Path]:
    """The picture files of a folder and those in it by their path below it, sorted by that."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*")}
    return {
        name: file
        for name, file in sorted(files.items())
        if file.suffix.lower() in ENDINGS and not any(part.startswith(".") for part in name.split("/"))
    }


def _listed(meta_info: Sequence[str], problems: list[str]) -> dict[str, str] | None:
    """Every line of the text files by the name without ending that it lists, or None without such files."""
    if not meta_info:
        return None
    names: dict[str, str] = {}
    for file in meta_info:
        try:
            names |= listed_names(Path(file).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{file}: meta_info cannot be read ({error})")
    return names


def _opened(pair: Pair) -> tuple[Pair, list[str], list[int]]:
    """The pair with its digest, what is wrong without decoding anything, and the pixels of each side."""
    digest = blake2b(digest_size=16)
    wrong, areas = [], []
    for which in pair.sides:
        try:
            data = pair.bytes_of(which)
            digest.update(data)
            with open_header(data) as image:
                areas.append(image.width * image.height)
                if is_sixteen_bit(image, data):
                    raise BadPicture("16 bits a channel; convert it to 8 bits")
        except BadPicture as error:
            wrong.append(f"{pair.spoken(which)}: {error}")
    return replace(pair, digest=digest.hexdigest()), wrong, areas


def _looked_at(
    pairs: Sequence[Pair], folder: PixelFolder, areas: Sequence[Sequence[int]]
) -> tuple[list[PairFacts | None], list[str]]:
    """What the pictures are, from an earlier run's note or by decoding them, and which of them are damaged."""
    key = pixels_key(pairs)
    noted = _remembered(folder.facts(key), len(pairs))
    if noted is not None:
        return list(noted), []
    offsets, at = [], 0
    for sides in areas:
        offsets.append(at)
        at += 3 * sum(sides)
    file = folder.start(at)
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            looked = list(pool.map(partial(_decoded, file), pairs, offsets))
        facts = [fact for fact, _ in looked]
        damaged = [problem for _, wrong in looked for problem in wrong]
        if not damaged:
            known = [list(vars(fact).values()) for fact in facts if fact is not None]
            file.keep(key, known) if file is not None else folder.note(key, known)
    finally:
        if file is not None:
            file.discard()
    return facts, damaged


def _decoded(file: Unfinished | None, pair: Pair, offset: int) -> tuple[PairFacts | None, list[str]]:
    """Look at both sides whole; put them into the file, one behind the other."""
    sizes: list[Size] = []
    grey = transparent = False
    wrong = []
    for which in pair.sides:
        try:
            data = pair.bytes_of(which)
            pixels = decode(data)
        except BadPicture as error:
            wrong.append(f"{pair.spoken(which)}: {error}")
            continue
        if file is not None:
            file.put(offset, pixels)
        offset += pixels.size
        sizes.append((pixels.shape[0], pixels.shape[1]))
        with open_header(data) as image:
            grey |= image.mode in ("L", "LA", "1")
            transparent |= _is_transparent(image)
    return (None, wrong) if wrong else (PairFacts(sizes[0], sizes[-1], grey, transparent), [])


def _remembered(noted: object, count: int) -> list[PairFacts] | None:
    """The facts of a note, None when it is not one of these pictures'."""
    try:
        facts = [
            PairFacts((int(gt[0]), int(gt[1])), (int(lq[0]), int(lq[1])), bool(grey), bool(transparent))
            for gt, lq, grey, transparent in noted  # type: ignore[attr-defined]
        ]
    except (TypeError, ValueError, IndexError):
        return None
    return facts if len(facts) == count else None


def size_misfits(pair: Pair, facts: PairFacts, settings: PairSettings) -> Iterator[str]:
    """What is wrong with the sizes, which people say as width x height."""
    height, width = facts.gt_px
    if pair.lq is not None:
        wanted = facts.lq_px[0] * settings.scale, facts.lq_px[1] * settings.scale
        if wanted != facts.gt_px:
            yield (
                f"{pair.spoken('gt')}: {width} x {height} pixels, but with scale {settings.scale} its partner "
                f"{pair.spoken('lq')} ({facts.lq_px[1]} x {facts.lq_px[0]}) wants {wanted[1]} x {wanted[0]}"
            )
            return
    if min(facts.gt_px) < settings.gt_px:
        yield (
            f"{pair.spoken('gt')}: {width} x {height} pixels are less than a crop of {settings.gt_px}; "
            "leave the picture out or lower lq_size"
        )


def is_sixteen_bit(image: Image.Image, data: bytes) -> bool:
    """Pillow opens 16-bit colour as 8 bits without a word, so the file itself is asked."""
    if image.mode in SIXTEEN_BIT or image.mode == "F":
        return True
    if image.format == "PNG":
        return data[PNG_DEPTH_AT] == 16
    if image.format == "TIFF":
        depth = getattr(image, "tag_v2", {}).get(TIFF_DEPTH, 8)
        return bool(max(depth if isinstance(depth, tuple) else (depth,)) > 8)
    return False


def _is_transparent(image: Image.Image) -> bool:
    return image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _notes(pairs: Sequence[Pair], facts: Sequence[PairFacts]) -> Iterator[str]:
    both = list(zip(pairs, facts, strict=True))
    grey = [pair.name for pair, fact in both if fact.grey]
    clear = [pair.name for pair, fact in both if fact.transparent]
    for names, one, many in (
        (grey, "is grey and is trained on as RGB", "are grey and are trained on as RGB"),
        (clear, "is partly transparent and is laid on white", "are partly transparent and are laid on white"),
    ):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            yield f"1 picture {one}: {shown}" if len(names) == 1 else f"{len(names)} pictures {many}: {shown}"


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadPicture(f"cannot be read ({error.strerror})") from error
