"""The pictures of a restoration: degraded ones with their originals, prompts and types, or originals alone.

Everything that is wrong with them is found before the training, and named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from lora_trainer.data.degradation_folders import pairs_in_folders
from lora_trainer.data.pair_list import Columns, read_pair_list
from lora_trainer.data.pairs import Pair, PairFacts, PairSettings, examine_pairs, picture_files
from lora_trainer.errors import Refusal


@dataclass(frozen=True)
class RestorationSources:
    """Where the pictures are. What is given may be mixed, but all have a degraded partner, or none.

    `folders` hold `<type>/LQ` and `<type>/GT`, of which `kinds` are taken, or all. `lists` are CSV or parquet files;
    what is relative in them starts from `list_root`, else from their folder, and with `clean_only` their degraded
    pictures are passed over. `originals` are folders of clean pictures. `prompt` goes with each picture to which no
    list gives one, or, with `name_is_prompt`, its file name does. With `cache_gib`, decoded pictures are kept for
    `pair_store`.
    """

    folders: Sequence[str] = ()
    lists: Sequence[str] = ()
    originals: Sequence[str] = ()
    kinds: Sequence[str] = ()
    columns: Columns = field(default_factory=Columns)
    list_root: str = ""
    clean_only: bool = False
    prompt: str = ""
    name_is_prompt: bool = False
    enlarge: int = 1
    cache_gib: float = 0.0
    cache_folder: str = ""


@dataclass(frozen=True)
class RestorationSet:
    """The usable pictures; `prompts` and `kinds` have one for each. `pairs[n].lq` is None for originals alone."""

    pairs: tuple[Pair, ...]
    prompts: tuple[str, ...]
    kinds: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def paired(self) -> bool:
        return self.pairs[0].lq is not None

    def first_of_each_kind(self, count: int) -> list[int]:
        """The numbers of so many pictures of each type, in their order; 0 is all."""
        taken: dict[str, int] = {}
        chosen = []
        for item, kind in enumerate(self.kinds):
            taken[kind] = taken.get(kind, 0) + 1
            if not count or taken[kind] <= count:
                chosen.append(item)
        return chosen

    def fingerprint(self) -> str:
        """Equal for two sets of the same pictures, prompts and types in the same order, wherever they lie."""
        each = zip(self.pairs, self.prompts, self.kinds, strict=True)
        facts = [(pair.name, pair.digest, pair.repeats, prompt, kind) for pair, prompt, kind in each]
        return blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class _Found:
    """A pair that has not been opened yet; `prompt` is None where the sources decide."""

    name: str
    kind: str
    lq: Path | None
    gt: Path
    prompt: str | None


def survey_restoration(sources: RestorationSources) -> RestorationSet:
    """Find, match and decode every picture. Raises Refusal that names each file that cannot be used (the first 20)."""
    problems: list[str] = []
    notes: list[str] = []
    found, pairs = _found_pairs(sources, problems, notes)
    settings = PairSettings((), enlarge=sources.enlarge, cache_gib=sources.cache_gib, cache_folder=sources.cache_folder)
    examined = examine_pairs(pairs, problems, settings, partner_misfits)
    prompts = tuple(_prompt(each, sources) for each in found)
    return RestorationSet(examined.pairs, prompts, tuple(each.kind for each in found), (*notes, *examined.notes))


def found_pairs(sources: RestorationSources, problems: list[str]) -> list[Pair]:
    """Every pair, not yet opened; what is missing is added to `problems`. Raises Refusal for what cannot be mixed."""
    return _found_pairs(sources, problems, [])[1]


def _found_pairs(sources: RestorationSources, problems: list[str], notes: list[str]) -> tuple[list[_Found], list[Pair]]:
    found = _all_found(sources, problems, notes)
    if len({each.lq is None for each in found}) > 1:
        raise Refusal(
            "some pictures have a degraded partner and some have none: "
            f"{next(each.gt for each in found if each.lq is None)} has none; train on either kind"
        )
    if not found and not problems:
        raise Refusal("no pictures are given: name folders of LQ and GT, a list of pairs, or a folder of originals")
    pairs = [Pair(each.name, str(each.gt), str(each.lq) if each.lq else None, (0, 0), 1, "") for each in found]
    return found, pairs


def _all_found(sources: RestorationSources, problems: list[str], notes: list[str]) -> list[_Found]:
    found: list[_Found] = []
    for root in sources.folders:
        here = pairs_in_folders(Path(root), sources.kinds, problems)
        found += [_Found(each.name, each.kind, each.lq, each.gt, None) for each in here]
    for name in sources.lists:
        try:
            found += _listed(Path(name), sources, problems, notes)
        except Refusal as refusal:
            problems += refusal.problems
    for root in sources.originals:
        try:
            files = picture_files(Path(root))
        except Refusal as refusal:
            problems += refusal.problems
            continue
        found += [_Found(Path(name).with_suffix("").as_posix(), "", None, file, None) for name, file in files.items()]
    return found


def _listed(path: Path, sources: RestorationSources, problems: list[str], notes: list[str]) -> Iterable[_Found]:
    """The rows of a list whose files are there."""
    root = Path(sources.list_root or path.parent)
    rows = read_pair_list(path, sources.columns, root=root, paired=not sources.clean_only)
    if not any(row.prompt for row in rows):
        notes.append(f"{path}: has no prompts in a column {sources.columns.prompt}")
    for row in rows:
        gone = [file for file in (row.lq, row.gt) if file is not None and not file.is_file()]
        problems += [f"{row.place}: there is no file {file}" for file in gone]
        if not gone:
            yield _Found(_name(row.gt, root), row.kind, row.lq, row.gt, row.prompt or None)


def _name(file: Path, folder: Path) -> str:
    """The place below the folder without ending, or the name alone of a file that lies elsewhere."""
    below = file.relative_to(folder) if file.is_relative_to(folder) else Path(file.name)
    return (Path(file.name) if ".." in below.parts else below).with_suffix("").as_posix()


def _prompt(each: _Found, sources: RestorationSources) -> str:
    if each.prompt is not None:
        return each.prompt
    return prompt_of_name(each.gt) if sources.name_is_prompt else sources.prompt


def prompt_of_name(file: Path) -> str:
    """`a_red_house.png` is "a red house"."""
    return " ".join(file.stem.replace("_", " ").split())


def partner_misfits(pair: Pair, facts: PairFacts, settings: PairSettings) -> Iterable[str]:
    if pair.lq is not None and facts.lq_px != facts.gt_px:
        lq, gt = (f"{width} x {height}" for height, width in (facts.lq_px, facts.gt_px))
        yield (
            f"{pair.spoken('lq')}: {lq} pixels, but its original {pair.spoken('gt')} has {gt}; bring both to one size"
        )
