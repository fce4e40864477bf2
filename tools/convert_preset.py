"""Turn another program's configuration into a JSON preset, and say what could not be carried over.

It is recognised by its content: a YAML file of traiNNer-redux or of HYPIR; a TOML file of sd-scripts (--config_file); a
text, shell script or batch file that calls sd-scripts' train_network.py or sdxl_train_network.py, or the train.py of
StyleGAN3 or CREPS. That command can also be given after --:

    python -m tools.convert_preset presets/mine.json -- accelerate launch sdxl_train_network.py --network_dim 8
    python -m tools.convert_preset presets/mine.json -- python train.py --cfg=creps --gpus=8 --batch=32 --gamma=8.2
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_trainer.atomic import write_text
from lora_trainer.config.setting import keys_of
from lora_trainer.config.super_resolution import SuperResolutionPreset
from lora_trainer.config.super_resolution_sections import unfold_sections
from lora_trainer.errors import Refusal
from tools.presets.conversion import Converted, carry_over, entries_of
from tools.presets.hypir import TOLD_BY, convert_hypir, is_hypir
from tools.presets.sd_scripts import (
    Command,
    convert_sd_scripts,
    is_command_line,
    read_command,
    read_command_line,
    toml_arguments,
)
from tools.presets.stylegan import convert_gan, gan_command_words, is_gan_command

FIRST = (
    "trainer", "about", "pretrained_model_name_or_path", "sdxl", "train_data_dir", "output_dir", "output_name", "seed",
    "scale", "network_g", "network_d", "base_model_path",
)  # fmt: skip
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


def convert_trainner_redux(source: Path, content: Mapping[str, Any]) -> Converted:
    """A traiNNer-redux (or BasicSR) configuration as a flat preset of the super-resolution trainer."""
    name = str(content.get("name") or source.stem)
    flat = unfold_sections(entries_of({**content, "name": name}, source))
    converted = carry_over(flat, keys_of(SuperResolutionPreset), DROPPED)
    converted.preset = {"trainer": "super_resolution", "output_dir": f"output/{name}"} | converted.preset
    return converted


def read_yaml(path: Path, text: str) -> dict[str, Any]:
    """The file's table. Raises Refusal."""
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f":{place.line + 1}:{place.column + 1}" if place else ""
        raise Refusal(f"{path}{where}: this is no YAML file ({getattr(error, 'problem', error)})") from error
    if not isinstance(content, dict) or not ("network_g" in content or is_hypir(content)):
        raise Refusal(
            f"{path}: no configuration that is known: neither traiNNer-redux's, which has a network_g, nor HYPIR's, "
            f"which has {' and '.join(TOLD_BY)}, nor sd-scripts', which has a pretrained_model_name_or_path or calls "
            "train_network.py"
        )
    return content


def convert(source: Path, *, sdxl: bool = False) -> Converted:
    """Whatever the file holds. Raises Refusal."""
    try:
        text = source.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Refusal(f"{source}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Refusal(f"{source}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    if text.lstrip().startswith("{"):
        raise Refusal(f"{source}: is JSON; a preset of kohya_ss, traiNNer-redux or HYPIR in JSON is read as it is")
    if words := gan_command_words(text):
        return convert_gan(words)
    if is_command_line(text):
        return convert_sd_scripts(read_command_line(text, source.parent, Path()))
    arguments = toml_arguments(source, text)
    if arguments is not None:
        return convert_sd_scripts(Command({"sdxl": True, **arguments} if sdxl else arguments))
    content = read_yaml(source, text)
    return (convert_hypir if is_hypir(content) else convert_trainner_redux)(source, content)


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    at = given.index("--") if "--" in given else len(given)
    given, command = given[:at], given[at + 1 :]
    options = _parser(with_command=bool(command)).parse_args(given)
    target = options.target or options.source.with_suffix(".json")
    try:
        if command:
            gan = is_gan_command(command)
            converted = convert_gan(command) if gan else convert_sd_scripts(read_command(command))
        else:
            converted = convert(options.source, sdxl=options.sdxl)
        if options.output_dir:
            converted.preset["output_dir"] = options.output_dir
        if target.exists() and not options.target:
            raise Refusal(f"{target}: exists already; name the file to write")
        _write(target, converted)
        _say_what_is_wrong(target, converted)
    except Refusal as refusal:
        print("\n".join(refusal.problems), file=sys.stderr)
        return refusal.exit_status
    return 0


def _parser(*, with_command: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    if not with_command:
        parser.add_argument("source", type=Path, help="the file to convert")
    also = "" if with_command else " (default: the same name, .json)"
    parser.add_argument("target", type=Path, help=f"the preset to write{also}", nargs=None if with_command else "?")
    parser.add_argument("--output-dir", default="", help="the preset's output_dir (default: the file's)")
    parser.add_argument("--sdxl", action="store_true", help="a TOML file of sd-scripts is for sdxl_train_network.py")
    return parser


def _write(target: Path, converted: Converted) -> None:
    found = {name: converted.preset[name] for name in FIRST if name in converted.preset}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, json.dumps({**found, **converted.preset}, indent=2, ensure_ascii=False) + "\n")
    print(f"{target}: written")
    for key, reason in converted.left.items():
        print(f"not carried over: {key}: {reason}")
    for note in converted.notes:
        print(f"note: {note}")


def _say_what_is_wrong(path: Path, converted: Converted) -> None:
    """What the trainer would refuse, except for files and folders that are not there yet, and what does nothing."""
    from lora_trainer.config.reader import load_preset

    problems = list(converted.problems)
    try:
        loaded = load_preset(path)
        if loaded.preset.trainer == "super_resolution":
            from lora_trainer.trainers.super_resolution.checks import part_problems

            problems += part_problems(loaded)
        for key, why in loaded.inert.items():
            print(f"without effect: {key}: {why}")
    except Refusal as refusal:
        problems += refusal.problems
    for problem in problems:
        print(f"to mend: {problem}")


if __name__ == "__main__":
    sys.exit(main())
