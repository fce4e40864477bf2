"""A hook of mkdocs: what is a page besides docs/, and links as the site has them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
FURTHER_PAGES = {"CHANGELOG.md": "docs/changelog.md", "CONTRIBUTING.md": "docs/contributing.md"}
ORIGINS = {page: original for original, page in FURTHER_PAGES.items()}
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
CONTENTS = re.compile(r"(?:^- \[[^\]]*\]\(#[^)]*\)\n){3,}", re.MULTILINE)
KEY = re.compile(r"^### `(\w+)`$", re.MULTILINE)
WORD = re.compile(r"(?<!\[)`(\w+_\w+)`(?!\])")  # shorter ones have other meanings too
TABLE_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
CODE = re.compile(r"`[^`]+`")


def on_files(files: Any, config: Any) -> Any:
    for original, page in FURTHER_PAGES.items():
        content = (ROOT / original).read_text(encoding="utf-8")
        files.append(File.generated(config, page.removeprefix("docs/"), content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    page.meta["search"] = {"boost": 3.0 if page.file.src_uri.startswith("troubleshooting") else 1.0}
    if f"docs/{page.file.src_uri}" in ORIGINS:
        page.meta["search"]["exclude"] = True  # it is about this project, and not for who seeks a key or a message
    return for_the_site(markdown, f"docs/{page.file.src_uri}", config.repo_url)


def for_the_site(markdown: str, page: str, repository: str | None = None) -> str:
    """The text of a page, whose path is from the top; its list of contents goes, as the site has one beside it."""
    parts = FENCE.split(markdown)
    keys = _keys(page)
    for number in range(0, len(parts), 2):  # the others are blocks of code
        text = LINK.sub(lambda link: _linked(link, page, repository), CONTENTS.sub("", parts[number]))
        text = WORD.sub(lambda word: f"[{word[0]}]({keys[word[1]]})" if word[1] in keys else word[0], text)
        parts[number] = TABLE_ROW.sub(lambda row: CODE.sub(_without_escapes, row[0]), text)
    return "".join(parts)


def _keys(page: str) -> dict[str, str]:
    """Where each key stands that a trainer's page may speak of, if this is one."""
    reference = ROOT / "docs" / "presets" / posixpath.basename(page)
    if posixpath.dirname(page) != "docs" or not reference.is_file():
        return {}
    names = KEY.findall(reference.read_text(encoding="utf-8"))
    return {name: f"presets/{reference.name}#{name.lower()}" for name in names}


def _linked(link: re.Match[str], page: str, repository: str | None) -> str:
    """A link to a page gets its place in the site; one to another file leads to the repository, or is code."""
    text, target = link.groups()
    path, mark, anchor = target.partition("#")
    if not path or re.match(r"\w+:", path):
        return link[0]
    place = posixpath.normpath(posixpath.join(posixpath.dirname(ORIGINS.get(page, page)), path))
    found = FURTHER_PAGES.get(place, place)
    if found.startswith("docs/") or not (ROOT / place).exists():
        said = _title(ROOT / place) if text.endswith(".md") and place.endswith(text) else text
        return f"[{said}]({posixpath.relpath(found, posixpath.dirname(page))}{mark}{anchor})"
    if repository:
        return f"[{text}]({repository.rstrip('/')}/blob/HEAD/{place})"
    return f"`{place}`" if place.endswith(text.strip("`")) else f"{text} (`{place}`)"


def _title(page: Path) -> str:
    """Where a link says no more than the name of a page, the site says the page's heading."""
    heading = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE) if page.is_file() else None
    return heading[1] if heading else page.name


def _without_escapes(code: re.Match[str]) -> str:
    r"""A code host wants \| in the code of a table, mkdocs | alone."""
    return code[0].replace(r"\|", "|")
