"""The command line: `accelerate launch -m lora_trainer --preset presets/pdxl.json`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer import __version__
from lora_trainer.errors import Refusal

if TYPE_CHECKING:
    from lora_trainer.config.reader import Loaded

# Nothing here may import torch: --help, --check, --explain and --schema answer at once.


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 the training failed, 2 the person can mend it, 128 + n stopped by signal n."""
    options = parser().parse_args(arguments)
    try:
        return _answer(options)
    except Refusal as refusal:
        if _is_main():
            for problem in refusal.problems:
                print(problem, file=sys.stderr)  # noqa: T201 - the command line's own voice
        return refusal.exit_status
    except KeyboardInterrupt:  # a training listens to signals itself
        return 128 + signal.SIGINT


def _answer(options: argparse.Namespace) -> int:
    if options.schema:
        from lora_trainer.config.schema import json_schema

        print(json.dumps(json_schema(options.schema), indent=2, ensure_ascii=False))  # noqa: T201
        return 0
    if options.explain:
        from lora_trainer.config.explain import explain

        print(explain(options.explain))  # noqa: T201
        return 0
    if not options.preset:
        parser().error("--preset FILE is needed: for example --preset presets/demo.json")
    from lora_trainer.config.reader import load_stages

    stages = load_stages(Path(options.preset), [word for words in options.set for word in words])
    return _check(stages, options.preset) if options.check else _train(stages, options)


def _check(stages: Sequence[Loaded], name: str) -> int:
    from lora_trainer.trainers.starts import STARTS

    for loaded in stages:
        told: Sequence[str] = STARTS[loaded.preset.trainer].call("check", loaded) or ()
        for line in (*loaded.notes, *told, *(f"{key}: without effect: {why}" for key, why in loaded.inert.items())):
            print(f"{loaded.stage}: {line}" if loaded.stage else line)  # noqa: T201
    print(f"{name}: fine")  # noqa: T201
    return 0


def _train(stages: Sequence[Loaded], options: argparse.Namespace) -> int:
    from lora_trainer.engine.signals import Stopped, StopRequest

    stop = StopRequest()
    try:
        stop.install()  # now, because loading torch takes seconds in which a person may think again
        from lora_trainer.quick_imports import quick_imports

        with quick_imports():
            from lora_trainer.trainers.run import run

        return run(stages, stop, dry=options.dry_run, restart=options.restart)
    except Stopped as stopped:
        if stopped.message and _is_main():
            print(stopped.message, file=sys.stderr)  # noqa: T201
        return stopped.exit_status


def _is_main() -> bool:
    """Whether this is the one process of the run that speaks; the others would say the same."""
    return os.environ.get("RANK", "0") == "0"


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="lora_trainer", description="Train what a JSON preset says; the same command goes on after a stop."
    )
    found.add_argument("--preset", metavar="FILE", help="the preset to train")
    found.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="append", default=[], help="override keys")
    found.add_argument("--check", action="store_true", help="only say whether the preset is right")
    found.add_argument("--dry-run", action="store_true", help="look at the pictures, print the plan, try one step")
    found.add_argument("--restart", action="store_true", help="begin anew, whatever the output folder holds")
    found.add_argument("--explain", metavar="KEY", help="say what a key means")
    found.add_argument("--schema", metavar="TRAINER", help="print the JSON Schema of a trainer's presets")
    found.add_argument("--version", action="version", version=f"lora_trainer {__version__}")
    return found


if __name__ == "__main__":
    sys.exit(main())
