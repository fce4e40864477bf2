"""The site builds without a warning, asks nothing of the network, and all its links lead somewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tools.docs_site import FURTHER_PAGES, for_the_site

ROOT = Path(__file__).resolve().parents[2]
LOADED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "audio": "src",
    "video": "src",
}


class Page(HTMLParser):
    """What a page links to, what it loads by itself, and what can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in given}
        self.anchors.add(attributes.get("id", ""))
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag in LOADED and LOADED[tag] in attributes and attributes.get("rel") != "canonical":
            self.loads.append(attributes[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site ü") / "out"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONUTF8": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stderr and "ERROR" not in built.stderr, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_link_and_anchor_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    dead = []
    for path, page in pages.items():
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            found = target / "index.html" if target.is_dir() else target
            here = found.is_file() and (found.suffix != ".html" or unquote(parts.fragment) in pages[found].anchors)
            dead += [] if here else [f"{path.relative_to(site)}: {link}"]
    assert dead == []
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert [load for page in pages.values() for load in page.loads if urlsplit(load).netloc] == []
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles and not any("url(http" in style or "@import" in style for style in styles)
    assert (site / "search" / "search_index.json").stat().st_size > 100_000


def test_every_page_is_in_the_navigation(pages: dict[Path, Page]) -> None:
    class Loader(yaml.SafeLoader):
        """mkdocs' own tags stand for Python objects."""

    def leaves(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [leaf for each in (entry.values() if isinstance(entry, dict) else entry) for leaf in leaves(each)]

    named = leaves(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(named) == sorted(written | {page.removeprefix("docs/") for page in FURTHER_PAGES.values()})
    assert len(pages) == len(named)


def test_a_key_is_found_by_its_anchor(pages: dict[Path, Page]) -> None:
    (page,) = [page for path, page in pages.items() if path.as_posix().endswith("/presets/lora.html")]
    assert {"noise_offset", "network_dim", "train_data_dir"} <= page.anchors


def test_links_to_files_of_the_repository() -> None:
    page = "docs/tools.md"
    text = "See [the table](../lora_trainer/losses/noise.py#L3) and [`setup.cfg`](../setup.cfg)."
    assert for_the_site(text, page) == "See the table (`lora_trainer/losses/noise.py`) and `setup.cfg`."
    assert for_the_site(text, page, "https://host/me/it/") == (
        "See [the table](https://host/me/it/blob/HEAD/lora_trainer/losses/noise.py) and "
        "[`setup.cfg`](https://host/me/it/blob/HEAD/setup.cfg)."
    )


def test_links_to_pages() -> None:
    assert for_the_site("[log.md](docs/log.md)", "docs/changelog.md") == "[Log](log.md)"
    assert for_the_site("[it](../CHANGELOG.md#a)", "docs/tools.md") == "[it](changelog.md#a)"
    assert for_the_site("[here](../gan.md#data)", "docs/presets/gan.md") == "[here](../gan.md#data)"
    gone = "[gone](../lora_trainer/gone.py)"
    assert for_the_site(gone, "docs/tools.md") == gone  # which mkdocs then refuses


def test_keys_on_the_page_of_a_trainer() -> None:
    text = "`noise_offset`, `seed`, `no_key` and [`network_dim`](x.md)"
    linked = "[`noise_offset`](presets/lora.md#noise_offset), `seed`, `no_key` and [`network_dim`](x.md)"
    assert for_the_site(text, "docs/lora.md") == linked
    assert for_the_site("`noise_offset`", "docs/engine.md") == "`noise_offset`"


def test_what_a_code_host_needs_and_the_site_does_not() -> None:
    code = "```bash\n[x](../setup.cfg)\n```\n"
    assert for_the_site(code, "docs/tools.md") == code
    assert for_the_site(r"| `a \| b` | c |", "docs/tools.md") == "| `a | b` | c |"
    contents = "- [A](#a)\n- [B](#b)\n- [C](#c)\n"
    assert for_the_site(f"one\n\n{contents}\ntwo", "docs/tools.md") == "one\n\n\ntwo"
