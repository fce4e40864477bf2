"""The pictures of super-resolution: high-resolution files and, where given, their low-resolution partners.

Everything that is wrong with them is found before the training, and named.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from lora_trainer.data.buckets import Size
from lora_trainer.data.images import SIXTEEN_BIT, BadPicture, Pixels, decode, size_px
from lora_trainer.data.lmdb_folder import LmdbFolder
from lora_trainer.errors import Refusal

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
NAMED_AT_MOST = 20
LEAST_CROPS = 1000  # of an epoch, which dataset_enlarge_ratio auto brings about
WORKERS = 4
PNG_DEPTH_AT, TIFF_DEPTH = 24, 258


@dataclass(frozen=True)
class PairSettings:
    """Where the pictures are and what they must be. `dataroot_lq` is empty where the low resolution is made.

    `gt_px` is the side of the crop that must fit in; `enlarge` how often an epoch draws each, 0 for as often as needed.
    """

    dataroot_gt: Sequence[str]
    dataroot_lq: Sequence[str] = ()
    meta_info: Sequence[str] = ()
    filename_tmpl: str = "{}"
    io_backend: str = "disk"
    scale: int = 1
    gt_px: int = 1
    enlarge: int = 0


@dataclass(frozen=True)
class Pair:
    """`gt` and `lq` are a file, or the key of a record in the LMDB folder `gt_store` or `lq_store`."""

    name: str
    gt: str
    lq: str | None
    gt_px: Size
    repeats: int
    digest: str
    gt_store: str = ""
    lq_store: str = ""

    def read(self, which: str) -> Pixels:
        """The pixels of "gt" or "lq", (h, w, 3). Raises BadPicture."""
        return decode(self.bytes_of(which))

    def bytes_of(self, which: str) -> bytes:
        """The file as it is. Raises BadPicture."""
        place, store = (self.gt, self.gt_store) if which == "gt" else (self.lq or "", self.lq_store)
        return LmdbFolder(Path(store)).read(place) if store else _file_bytes(Path(place))


@dataclass(frozen=True)
class PairSet:
    """The usable pictures, and what there is to say about them."""

    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Looked:
    """What one pair of files turned out to be."""

    pair: Pair | None
    problem: str = ""
    grey: bool = False
    transparent: bool = False


def survey_pairs(settings: PairSettings) -> PairSet:
    """Find, match and open every picture. Raises Refusal that names each file that cannot be used (the first 20)."""
    found, problems = _matched(settings)
    with ThreadPoolExecutor(WORKERS) as pool:
        looked = list(pool.map(lambda pair: _look(pair, settings), found))
    problems += [each.problem for each in looked if each.problem]
    if problems:
        more = len(problems) - NAMED_AT_MOST
        raise Refusal(*problems[:NAMED_AT_MOST], *([f"... and {more} more"] if more > 0 else []))
    pairs = [each.pair for each in looked if each.pair is not None]
    if not pairs:
        raise Refusal(f"{', '.join(settings.dataroot_gt)}: there are no pictures ({', '.join(ENDINGS)})")
    repeats = settings.enlarge or max(1, -(-LEAST_CROPS // len(pairs)))
    pairs = [Pair(**{**vars(pair), "repeats": repeats}) for pair in pairs]
    return PairSet(tuple(pairs), tuple(_notes(looked)))


def pairs_fingerprint(pairs: Sequence[Pair]) -> str:
    """Equal for two sets of the same pictures, names and repeats, wherever they lie."""
    facts = [(pair.name, pair.digest, pair.repeats) for pair in pairs]
    return blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def validation_pairs(pairs: PairSet, scale: int) -> Iterator[tuple[str, Pixels, Pixels | None]]:
    """Name, whole high-resolution picture cropped to a multiple of the scale, and the low one where there is one."""
    for pair in pairs.pairs:
        gt = pair.read("gt")
        height, width = (side // scale * scale for side in gt.shape[:2])
        yield pair.name, gt[:height, :width], pair.read("lq") if pair.lq is not None else None


def _matched(settings: PairSettings) -> tuple[list[Pair], list[str]]:
    """Every high-resolution picture with its partner, not yet opened, and what is missing on either side."""
    wanted = _listed(settings.meta_info)
    found: list[Pair] = []
    problems: list[str] = []
    for number, root in enumerate(settings.dataroot_gt):
        gt = _pictures(root, settings.io_backend)
        if wanted is not None:
            gt = {stem: place for stem, place in gt.items() if stem in wanted}
        if not settings.dataroot_lq:
            found += [_unopened(root, stem, place, None, "", settings) for stem, place in gt.items()]
            continue
        lq_root = settings.dataroot_lq[number]
        lq = _pictures(lq_root, settings.io_backend)
        for stem, place in gt.items():
            partner = lq.pop(_partner(stem, settings.filename_tmpl), None) or lq.pop(f"{stem}x{settings.scale}", None)
            if partner is None:
                problems.append(f"{place}: has no partner in {lq_root}")
            else:
                found.append(_unopened(root, stem, place, partner, lq_root, settings))
        if wanted is None:
            problems += [f"{place}: has no partner in {root}" for place in lq.values()]
    return found, problems


def _partner(stem: str, template: str) -> str:
    folder, slash, name = stem.rpartition("/")
    return f"{folder}{slash}{template.replace('{}', name)}"


def _unopened(root: str, stem: str, place: str, lq: str | None, lq_root: str, settings: PairSettings) -> Pair:
    lmdb = settings.io_backend == "lmdb"
    return Pair(stem, place, lq, (0, 0), 1, "", root if lmdb else "", lq_root if lmdb else "")


def _pictures(root: str, backend: str) -> dict[str, str]:
    """Place of every picture below a folder by its path without ending, in order. Raises Refusal."""
    folder = Path(root)
    if backend == "lmdb":
        return {name: name for name in LmdbFolder(folder).names()}
    if not folder.is_dir():
        raise Refusal(f"{root}: there is no such folder")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
    found: dict[str, str] = {}
    for file in files:
        stem = file.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise Refusal(f"{file}: there is another picture of that name, {found[stem]}; rename one of them")
        found[stem] = str(file)
    return found


def _listed(meta_info: Sequence[str]) -> set[str] | None:
    """The names without ending that the text files list, or None without such files. Raises Refusal."""
    if not meta_info:
        return None
    names = set()
    for file in meta_info:
        try:
            lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Refusal(f"{file}: meta_info cannot be read ({error})") from error
        names |= {Path(line.split(" (")[0].strip()).with_suffix("").as_posix() for line in lines if line.strip()}
    return names


def _look(pair: Pair, settings: PairSettings) -> _Looked:
    """Open both files."""
    try:
        data = pair.bytes_of("gt")
        gt_px, facts = _opened(data)
        digest = blake2b(data, digest_size=16)
        if pair.lq is not None:
            small = pair.bytes_of("lq")
            digest.update(small)
            lq_px, lq_facts = _opened(small)
            facts = facts[0] or lq_facts[0], facts[1] or lq_facts[1]
            if (lq_px[0] * settings.scale, lq_px[1] * settings.scale) != gt_px:
                wanted = f"{lq_px[1] * settings.scale} x {lq_px[0] * settings.scale}"
                return _Looked(
                    None,
                    f"{pair.gt}: {gt_px[1]} x {gt_px[0]} pixels, but with scale {settings.scale} its partner {pair.lq} "
                    f"({lq_px[1]} x {lq_px[0]}) wants {wanted}",
                )
    except BadPicture as error:
        return _Looked(None, f"{pair.gt}: {error}")
    if min(gt_px) < settings.gt_px:
        return _Looked(
            None,
            f"{pair.gt}: {gt_px[1]} x {gt_px[0]} pixels are less than a crop of {settings.gt_px}; "
            "leave the picture out or lower lq_size",
        )
    done = Pair(**{**vars(pair), "gt_px": gt_px, "digest": digest.hexdigest()})
    return _Looked(done, grey=facts[0], transparent=facts[1])


def _opened(data: bytes) -> tuple[Size, tuple[bool, bool]]:
    """Size, and whether the picture is grey and has transparency. Raises BadPicture, for sixteen bits too."""
    size = size_px(data)
    with Image.open(io.BytesIO(data)) as image:
        if _is_sixteen_bit(image, data):
            raise BadPicture("16 bits a channel; convert it to 8 bits, because half of the steps would be lost unseen")
        transparent = image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255)
        return size, (image.mode in ("L", "LA", "1"), bool(transparent))


def _is_sixteen_bit(image: Image.Image, data: bytes) -> bool:
    """Pillow opens 16-bit colour as 8 bits without a word, so the file itself is asked."""
    if image.mode in SIXTEEN_BIT or image.mode == "F":
        return True
    if image.format == "PNG":
        return data[PNG_DEPTH_AT] == 16
    if image.format == "TIFF":
        depth = getattr(image, "tag_v2", {}).get(TIFF_DEPTH, 8)
        return bool(max(depth if isinstance(depth, tuple) else (depth,)) > 8)
    return False


def _notes(looked: Sequence[_Looked]) -> Iterator[str]:
    for word, chosen in (
        ("grey and are trained on as RGB", [each.pair for each in looked if each.grey]),
        ("partly transparent and are laid on white", [each.pair for each in looked if each.transparent]),
    ):
        names = [pair.name for pair in chosen if pair is not None]
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            yield f"{len(names)} pictures are {word}: {shown}"


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadPicture(f"cannot be read ({error.strerror})") from error
