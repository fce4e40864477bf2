"""What docs/gan.md says of presets, options and R1's weight is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from lora_trainer.config.gan import GanPreset
from lora_trainer.config.gan_gamma import suggested_gamma
from lora_trainer.config.gan_saving import METRICS
from lora_trainer.config.setting import keys_of
from lora_trainer.losses.feature_networks import KINDS
from tools import generate
from tools.presets.stylegan import FLAGS, OPTIONS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "gan.md").read_text(encoding="utf-8")
PRESETS = {path.name for path in (ROOT / "presets" / "gan").glob("*.json")}


def section(heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found.group(1)


def test_the_presets_that_are_named_are_there_and_none_is_left_out() -> None:
    table = [line for line in section("Presets").splitlines() if line.startswith("| `")]
    named = {name for line in table for name in re.findall(r"`([\w*-]+\.json)`", line.split("|")[1])}
    covered = {name for name in PRESETS for pattern in named if Path(name).match(pattern)}
    assert all(any(Path(name).match(pattern) for name in PRESETS) for pattern in named)
    assert {name for name in PRESETS - covered if not re.search(r"_\d+px", name)} <= {"example.json"}


def test_the_weights_of_the_table_are_those_that_are_suggested() -> None:
    lines = [line.split("|")[1:-1] for line in section("R1's weight").splitlines() if line[:3] == "| `"]
    lines = [cells for cells in lines if cells[0].strip() != "`cfg`"]
    told = {cfg: cells[2].strip() for cells in lines for cfg in re.findall(r"`([\w-]+)`", cells[0])}
    assert told == {
        cfg: ", ".join(f"{suggested_gamma(cfg, resolution, 32):.15g}" for resolution in (128, 256, 512, 1024))
        for cfg in ("creps", "stylegan3-t", "stylegan3-r", "stylegan2", "r3gan")
    }


def test_the_options_of_train_py_that_are_told_of_exist() -> None:
    known = {f"--{name.replace('_', '-')}" for name in (*OPTIONS, *FLAGS)}
    lines = [line.split("|")[1] for line in section("Coming from train.py").splitlines() if line.startswith("| `--")]
    assert {option for line in lines for option in re.findall(r"`(--[\w-]+)`", line)} <= known


def test_every_metric_is_told_of_with_the_network_that_it_needs() -> None:
    rows = [line.split("|")[1:-1] for line in section("Metrics").splitlines() if re.match(r"\| `\w+50k|\| `ppl", line)]
    told = {name: cells[3] for cells in rows for name in re.findall(r"`(\w+)`", cells[0])}
    assert told.keys() == METRICS.keys()
    for name, network in METRICS.items():
        assert network in told[name] or told[name].strip() == "as above"
    urls = {kind.published.url for kinds in KINDS.values() for kind in kinds}
    assert urls == set(re.findall(r"\]\((https://[^)]+)\)", section("Metrics")))


def test_the_commands_about_snapshots_are_taken() -> None:
    text = section("Using a snapshot")
    commands = re.findall(r"^python -m tools\.generate (.*)$", text, re.MULTILINE)
    assert len(commands) >= 7
    for words in (*commands, *re.findall(r"^python -m tools\.generate (.*)$", generate.__doc__ or "", re.MULTILINE)):
        generate._check(generate._parser().parse_args(shlex.split(words)))
    known = set(re.findall(r"--[a-z][\w-]*", generate._parser().format_help())) - {"--help"}
    assert known == set(re.findall(r"--[a-z][\w-]*", text))


def test_keys_in_the_parts_about_presets_are_real() -> None:
    text = "".join(section(heading) for heading in ("R1's weight", "The batch, processes and passes"))
    text += section("Coming from train.py")
    words = set(re.findall(r"`([a-z]\w*_\w*)`", text))
    assert len(words) >= 8
    assert words <= {*keys_of(GanPreset), *METRICS}
