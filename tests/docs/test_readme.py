"""What README.md and docs/ say can be typed, opened and found: commands, options, keys, paths and links."""

from __future__ import annotations

import configparser
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lora_trainer.__main__ import parser
from lora_trainer.config.setting import keys_of
from lora_trainer.config.trainers import TRAINERS
from lora_trainer.data.dataset_config import NOT_HERE, OF_ALL, WITHOUT_EFFECT
from lora_trainer.engine.schedules import SCHEDULES
from tools import before_after

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
EXAMPLE = ROOT / "docs" / "extending.md"  # its commands are run by test_extending.py
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
KEYS = {name: key for row in TRAINERS.values() for name, key in keys_of(row.preset).items()}
FORMER = {old for key in KEYS.values() for old in key.setting.old_names}
NO_KEYS = {  # other words with an underscore that docs/lora.md has in code type
    "sshs_model_hash", "sshs_legacy_hash", "lora_unet_", "lora_te_", "lora_te1_", "lora_te2_", "v_pred",
    "scaling_factor", "relative_step", "weight_decay", "negative_prompt", "sample_steps", *SCHEDULES,
    # tensors of LoRA files, and keys of LyCORIS preset files
    "lora_down", "lora_up", "lora_mid", "hada_w1_a", "hada_w2_b", "lokr_w1", "lokr_w2", "oft_blocks", "on_input",
    "dora_scale", "diff_b", "w_norm", "b_norm", "unet_target_module", "module_algo_map", "reverse_linear",
    *OF_ALL, *WITHOUT_EFFECT, *NOT_HERE,
}  # fmt: skip


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each line that a reader types."""
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in ("bash", "powershell"):
            joined = re.sub(r"\\\n\s*", "", text)
            yield from (shlex.split(line.replace("\\", "/")) for line in joined.splitlines() if line.strip())


def every_command() -> list[list[str]]:
    return [words for page in PAGES if page != EXAMPLE for words in commands(page)]


def modules_of(name: str) -> list[list[str]]:
    """The arguments of each `-m name` that is documented."""
    return [words[words.index("-m") + 2 :] for words in every_command() if name in words and "-m" in words]


def test_every_program_of_a_command_is_known() -> None:
    allowed = re.compile(
        r"make|accelerate|torchrun|python|\.venv/bin/python|\.venv/Scripts/activate|[A-Z_]+=\w+", re.ASCII
    )
    assert {words[0] for words in every_command() if not allowed.fullmatch(words[0])} == set()


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {words[1] for words in every_command() if words[0] == "make"}
    spoken = {target for page in PAGES for target in re.findall(r"`make ([\w-]+)", page.read_text(encoding="utf-8"))}
    assert {"demo", "test"} <= named
    assert (named | spoken) - targets == set()


def test_modules_exist() -> None:
    named = {words[words.index("-m") + 1] for words in every_command() if "-m" in words}
    assert {"lora_trainer", "tools.before_after", "pytest", "pip", "venv"} <= named
    assert [name for name in named if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("words", modules_of("lora_trainer"), ids=" ".join)
def test_commands_of_the_trainer_are_right(words: list[str]) -> None:
    options = parser().parse_args(words)
    assert options.preset or options.explain or options.schema
    assert options.preset is None or (ROOT / options.preset).is_file()
    assert options.explain is None or options.explain in KEYS
    assert options.schema is None or options.schema in TRAINERS
    assert [word for given in options.set for word in given if word.split("=")[0] not in KEYS] == []


def test_the_sheet_of_the_demo_is_of_its_model_and_its_lora() -> None:
    demo = json.loads((ROOT / "presets" / "demo.json").read_text(encoding="utf-8"))
    lora = f"{demo['output_dir']}/{demo['output_name']}.safetensors"
    documented = [before_after._parser().parse_args(words) for words in modules_of("tools.before_after")]
    ours = [options for options in documented if options.lora.as_posix() == lora]
    assert ours
    assert {options.base.as_posix() for options in ours} == {demo["pretrained_model_name_or_path"]}
    assert {(ROOT / options.prompts).is_file() for options in ours} == {True}
    assert f"--lora {lora}" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_what_pip_installs_is_declared() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    installs = [words for words in every_command() if "pip" in words]
    extras = {extra for words in installs for extra in re.findall(r"\.\[(\w+)\]", " ".join(words))}
    assert extras == {"dev", "cuda"}
    assert extras <= set(setup["options.extras_require"])
    files = [words[words.index("-c") + 1] for words in installs if "-c" in words]
    assert files == ["constraints.txt"]
    assert (ROOT / "constraints.txt").is_file()


def test_the_tree_of_the_readme_is_there() -> None:
    (tree,) = [text for name, text in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")) if name == "text"]
    folder = ROOT
    named = []
    for line in tree.splitlines():
        indent, name = re.fullmatch(r"( *)(\S+) .*", line).groups()  # type: ignore[union-attr]
        place = (folder if indent else ROOT) / name
        assert place.is_dir() if name.endswith("/") else place.is_file(), line
        folder = folder if indent else place
        named.append(name)
    packages = {f"{path.parent.name}/" for path in (ROOT / "lora_trainer").glob("*/__init__.py")}
    assert packages <= set(named)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@cache
def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_source_files_are_there(page: Path) -> None:
    """`data/buckets.py` is meant from the package or from the top; extending.md makes files of its own."""
    named = re.findall(r"`((?:\w+/)+\w+\.(?:py|json|md|gz))(?=[`:])", page.read_text(encoding="utf-8"))
    made = re.findall(
        r"^# (lora_trainer/\S+\.py)$|`(presets/mean_colour\.json)`", EXAMPLE.read_text(encoding="utf-8"), re.M
    )
    known = {name for names in made for name in names}
    places = (ROOT, ROOT / "lora_trainer")
    assert [name for name in named if name not in known and not any((place / name).is_file() for place in places)] == []


def test_the_lora_page_names_real_keys() -> None:
    words = set(re.findall(r"`([a-z]\w*_\w*)`", (ROOT / "docs" / "lora.md").read_text(encoding="utf-8")))
    assert len(words) > 40
    assert words - set(KEYS) - FORMER - NO_KEYS == set()
