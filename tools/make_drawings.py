r"""Make a training set for a small model of drawings that are free to use: several hundred things in four styles.

npm install --ignore-scripts --prefix build/npm @iconify-json/noto@1.2.9 @iconify-json/fluent-emoji-flat@1.2.6
npm install --ignore-scripts --prefix build/npm @iconify-json/fluent-emoji-high-contrast@1.2.6 emojibase-data@17.0.0
python -m tools.make_drawings build/npm/node_modules build/drawings --photos presets/photos \
    --things presets/finetune/drawings_things.txt
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lora_trainer import atomic
from lora_trainer.data.folders import EXTENSIONS
from lora_trainer.draws import draw_key
from lora_trainer.errors import Refusal
from tools.drawings.concepts import Concept, read_concepts
from tools.drawings.icons import Render, read_icon_set, render_with_resvg
from tools.drawings.sources import FLAT, HIGH_CONTRAST, NOTO, sources_page
from tools.drawings.studio import OUTLINE, STYLES, Studio

BASE_FOLDER, OUTLINE_FOLDER, MORE_FOLDER, HELD_OUT_FOLDER = "base", "outline", "more", "held_out"
VAE_LIST, SOURCES = "vae.json", "SOURCES.md"
FEWER = 4  # the other folders have so many times fewer variants than the base's
PHOTO_USES = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use that is refused."""
    options = _parser().parse_args(arguments)
    try:
        studio = make_drawings(
            options.modules,
            options.out,
            options.seed,
            options.variants,
            options.held_out,
            options.photos,
            options.things,
            options.plain,
        )
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_status
    print(f"{options.out}: {len(studio.written)} pictures; {SOURCES} in it says where they come from")
    return 0


def make_drawings(
    modules: Path,
    out: Path,
    seed: int = 0,
    variants: int = 8,
    held_out: int = 24,
    photos: Path | None = None,
    things: Path | None = None,
    plain: bool = False,
    render: Render = render_with_resvg,
) -> Studio:
    """Write the folders, the list for the VAE and the sources. Raises Refusal."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refusal(f"{out} is there already; give a new folder's name, or delete it")
    sets = {package: read_icon_set(modules, package) for package in (NOTO, FLAT, HIGH_CONTRAST)}
    studio = Studio(sets, render, seed, out, plain)
    drawn = [concept for concept in read_concepts(modules) if studio.has(concept, STYLES)]
    known = [concept for concept in drawn if concept.kind]
    if not known:
        raise Refusal(f"{modules}: nothing that is drawn is in all of the packages; install them anew")
    base = _chosen(known, things) if things is not None else known
    page = sources_page(modules, len(base), seed)
    others = [concept for concept in drawn if not concept.kind]
    others.sort(key=lambda concept: draw_key(seed, "held out", concept.code))
    left = [concept for concept in known if concept not in base]
    _write_trained(studio, base, [*others[held_out:], *left], variants)
    _write_list(out / VAE_LIST, studio.written, photos)
    for concept in others[:held_out]:
        studio.write(HELD_OUT_FOLDER, concept, {**STYLES, **(OUTLINE if studio.has(concept, OUTLINE) else {})}, 1)
    atomic.write_text(out / SOURCES, page)
    return studio


def _chosen(known: Sequence[Concept], things: Path) -> list[Concept]:
    """Those that the file names. Raises Refusal."""
    try:
        lines = things.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(
            f"--things {things}: cannot be read ({error}); give a text file with a name in each line"
        ) from error
    wanted = {line.strip() for line in lines if line.strip()}
    unknown = sorted(wanted - {concept.name for concept in known})
    if unknown or not wanted:
        what = f"there is no {unknown[0]} in all of the packages" if unknown else "it names nothing"
        raise Refusal(f"--things {things}: {what}; presets/finetune/drawings_things.txt shows how names are written")
    return [concept for concept in known if concept.name in wanted]


def _write_trained(studio: Studio, base: Sequence[Concept], more: Sequence[Concept], variants: int) -> None:
    for concept in base:
        studio.write(BASE_FOLDER, concept, STYLES, variants)
    for concept in more:
        studio.write(MORE_FOLDER, concept, STYLES, variants // FEWER)
    for concept in (*base, *more):
        if studio.has(concept, OUTLINE):
            studio.write(OUTLINE_FOLDER, concept, OUTLINE, variants // FEWER)


def _write_list(path: Path, pictures: Sequence[Path], photos: Path | None) -> None:
    """All pictures but those that are held out, and the photographs more often: they are few."""
    entries: list[dict[str, Any]] = [{"image": _from(path, picture)} for picture in pictures]
    found = list(_pictures_in(photos)) if photos is not None else []
    entries += [{"image": _from(path, photo), "multiply": PHOTO_USES} for photo in found]
    atomic.write_text(path, json.dumps(entries, indent=0))


def _pictures_in(folder: Path) -> Iterator[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    if not found:
        raise Refusal(f"--photos {folder}: holds no picture")
    return iter(found)


def _from(file: Path, picture: Path) -> str:
    """Its path from the file's folder, or all of it where another drive lies between."""
    try:
        return Path(os.path.relpath(picture, file.parent)).as_posix()
    except ValueError:
        return picture.resolve().as_posix()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make_drawings", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", metavar="NODE_MODULES", type=Path, help="where npm has put the packages")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write; a new one")
    parser.add_argument("--seed", type=int, default=0, help="every choice follows from it (default 0)")
    parser.add_argument("--variants", type=int, default=8, help="of each thing and style; filters get half (default 8)")
    parser.add_argument(
        "--plain", action="store_true", help="as it is drawn, on white and on a colour, in place of variants"
    )
    parser.add_argument(
        "--held-out", type=int, default=24, help="things, none of the base's, that a VAE is measured on (default 24)"
    )
    parser.add_argument("--things", type=Path, help="a text file: only these are the base's, a name in each line")
    parser.add_argument("--photos", type=Path, help="a folder of photographs that the VAE is to learn too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
