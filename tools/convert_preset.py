"""Turn another program's configuration into a JSON preset, and say what could not be carried over.

So far: the YAML files of traiNNer-redux, old and new.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.atomic import write_text
from lora_trainer.config.entries import Entry
from lora_trainer.config.setting import keys_of
from lora_trainer.config.super_resolution import SuperResolutionPreset
from lora_trainer.config.super_resolution_sections import unfold_sections
from lora_trainer.errors import Refusal

NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d+")  # 2e-4, which YAML 1.1 takes for a word
FIRST = ("trainer", "about", "output_dir", "output_name", "seed", "scale", "network_g", "network_d")
LAUNCH = "says how the program is launched; accelerate and torchrun do that"
TOOL = "tools/export_onnx.py exports a finished model"
DROPPED = {  # keys of traiNNer-redux without a counterpart, and why
    "num_gpu": LAUNCH, "dist": LAUNCH, "launcher": LAUNCH, "rank": LAUNCH, "world_size": LAUNCH, "dist_params": LAUNCH,
    "watch": "nothing is watched", "is_train": "a preset is always for training", "root_path": "output_dir says it",
    "onnx": TOOL, "start_iter": "a run begins at step 0 or at its own checkpoint", "auto_resume": "it always resumes",
    "restart_scheduler": "the schedule is a function of the step and of the preset",
    "experiments_root": "output_dir says it", "models": "output_dir says it", "resume_models": "output_dir says it",
    "training_states": "output_dir says it", "log": "output_dir says it", "visualization": "output_dir says it",
}  # fmt: skip


@dataclass(frozen=True)
class Converted:
    """`left` has a reason for each key that was not carried over."""

    preset: dict[str, Any]
    left: dict[str, str]


def convert_trainner_redux(content: Mapping[str, Any], output_dir: str) -> Converted:
    """A traiNNer-redux (or BasicSR) configuration as a flat preset of the super-resolution trainer."""
    entries = {key: Entry(key, value, "", "", order) for order, (key, value) in enumerate(content.items())}
    flat = unfold_sections(entries)
    keys = keys_of(SuperResolutionPreset)
    found: dict[str, Any] = {"trainer": "super_resolution", "output_dir": output_dir}
    left: dict[str, str] = {}
    for name, entry in flat.items():
        if entry.value is None:
            continue
        if name in DROPPED:
            left[name] = DROPPED[name]
        elif name not in keys:
            left[name] = "there is no such key here"
        elif keys[name].effect.kind == "none":
            left[name] = keys[name].effect.reason
        else:
            found[name] = numbers(entry.value)
    ordered = {name: found[name] for name in FIRST if name in found}
    return Converted({**ordered, **found}, left)


def numbers(value: Any) -> Any:
    """Words such as 2e-4 as the numbers they are meant to be, at any depth."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """The file's table. Raises Refusal."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f":{place.line + 1}:{place.column + 1}" if place else ""
        raise Refusal(f"{path}{where}: this is no YAML file ({getattr(error, 'problem', error)})") from error
    if not isinstance(content, dict) or "network_g" not in content:
        raise Refusal(f"{path}: no configuration of traiNNer-redux: it has no network_g")
    return content


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the .yml file")
    parser.add_argument("target", type=Path, nargs="?", help="the preset to write (default: the same name, .json)")
    parser.add_argument("--output-dir", default="", help="the preset's output_dir (default: output/<name>)")
    options = parser.parse_args(arguments)
    target = options.target or options.source.with_suffix(".json")
    try:
        content = read_yaml(options.source)
        name = str(content.get("name") or options.source.stem)
        converted = convert_trainner_redux({**content, "name": name}, options.output_dir or f"output/{name}")
        if target.exists() and not options.target:
            raise Refusal(f"{target}: exists already; name the file to write")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, json.dumps(converted.preset, indent=2, ensure_ascii=False) + "\n")
        print(f"{target}: written")
        for key, reason in converted.left.items():
            print(f"not carried over: {key}: {reason}")
        _say_what_is_wrong(target)
    except Refusal as refusal:
        print("\n".join(refusal.problems), file=sys.stderr)
        return refusal.exit_status
    return 0


def _say_what_is_wrong(path: Path) -> None:
    """What the trainer would refuse, except for folders that are not there yet."""
    from lora_trainer.config.reader import load_preset

    try:
        loaded = load_preset(path)
        from lora_trainer.trainers.super_resolution_checks import part_problems

        problems = part_problems(loaded)
    except Refusal as refusal:
        problems = list(refusal.problems)
    for problem in problems:
        print(f"to mend: {problem}")


if __name__ == "__main__":
    sys.exit(main())
