"""The command line that restores pictures with a LoRA of the restoration trainer, or with HYPIR's released one.

python -m lora_trainer.restore --weights output/restoration/restorer.safetensors --base models/sd21-base old restored
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer import __version__
from lora_trainer.errors import Refusal

if TYPE_CHECKING:
    from lora_trainer.data.picture_results import Result
    from lora_trainer.models.checkpoint import Checkpoint
    from lora_trainer.trainers.restoration.inference import Restorer, Wishes
    from lora_trainer.trainers.restoration.weights import Told

# Nothing up here may import torch: --help answers at once.

log = logging.getLogger("lora_trainer.restore")  # whose __name__ may be __main__

PROMPT = "high quality, sharp details"  # HYPIR's own
TIMESTEP, TILE_PX, MULTIPLE, SEED = 200, 512, 8, 231
MOST_TIMES, LARGEST_PX, LAST_TIMESTEP, MOST_AT_ONCE, MOST_USUAL = 64.0, 65535, 999, 1024, 64
LARGEST_SEED = 2**63 - 1
FORMATS, COLOUR_FIXES, WINDOWS = ("png", "jpg", "webp"), ("wavelet", "none"), ("centred", "published")
PRECISIONS = ("bf16", "fp16", "no")
STOPPED = 130  # 128 + SIGINT, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 some pictures could not be restored, 2 the person can mend it, 130 stopped by Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        return _restore_all(options)
    except Refusal as refusal:
        for problem in refusal.problems:
            print(problem, file=sys.stderr)  # noqa: T201 - the command line's own voice
        return refusal.exit_status
    except KeyboardInterrupt:
        print("stopped; the same command goes on with the pictures that are left", file=sys.stderr)  # noqa: T201
        return STOPPED


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m lora_trainer.restore", description="Restore pictures with a trained LoRA, in one step each."
    )
    found.add_argument("input", metavar="INPUT", type=Path, help="a picture, or a folder with subfolders")
    found.add_argument(
        "output", metavar="OUTPUT", type=Path, help="a folder; for a single picture also the file to write"
    )
    model = found.add_argument_group("the model")
    model.add_argument(
        "--weights",
        required=True,
        type=Path,
        help="a .safetensors or .pth of a run, a checkpoint folder, HYPIR_sd2.pth",
    )
    model.add_argument("--no-ema", action="store_true", help="of a checkpoint folder not the moving average")
    model.add_argument(
        "--base", default="", help="Stable Diffusion 2.1-base: folder, file, or name on the hub; stand-in"
    )
    told = f"by default what the .safetensors tells, else {TIMESTEP}"
    model.add_argument("--model-t", type=_timestep, help=f"the timestep that the UNet is told, {told}")
    model.add_argument("--coeff-t", type=_timestep, help=f"the timestep that its answer is used at, {told}")
    size = found.add_argument_group("size").add_mutually_exclusive_group()
    size.add_argument("--upscale", type=_factor, help="so many times as large (default 1)")
    size.add_argument("--target-size", type=_side, metavar="PX", help="the longest side of the results")
    tiles = found.add_argument_group("tiles")
    tiles.add_argument(
        "--tile", type=_side_or_0, help=f"side in pixels, 0 for none (default as trained, else {TILE_PX})"
    )
    tiles.add_argument("--stride", type=_side, help="from tile to tile (default half a tile)")
    tiles.add_argument(
        "--batch", type=_count, help=f"tiles that are computed together (default as many as make up {TILE_PX} px)"
    )
    tiles.add_argument(
        "--window", choices=WINDOWS, default=WINDOWS[0], help="published: blended as HYPIR does, for parity"
    )
    looks = found.add_argument_group("what comes out")
    looks.add_argument("--prompt", help=f'by default what the .safetensors tells, else "{PROMPT}"')
    texts = looks.add_mutually_exclusive_group()
    texts.add_argument("--prompts", type=Path, metavar="FOLDER", help="with a .txt for each picture, of the same name")
    texts.add_argument("--captions-beside", action="store_true", help="the .txt beside each picture is its prompt")
    looks.add_argument("--fidelity", type=_share, default=0.0, help="0 the restorer alone .. 1 the picture as it was")
    looks.add_argument(
        "--colour-fix",
        choices=COLOUR_FIXES,
        help="wavelet: large areas keep the picture's own colours and brightness (default what the .safetensors tells: "
        "none after training on pairs; else wavelet)",
    )
    looks.add_argument("--sample-latents", action="store_true", help="draw the latents as HYPIR does, not their mean")
    looks.add_argument("--seed", type=_seed, help=f"for --sample-latents (default {SEED})")
    files = found.add_argument_group("files")
    files.add_argument("--format", choices=FORMATS, default="", help="of the results (default png)")
    files.add_argument("--quality", type=_quality, help="of jpg (default 96), or of a webp that is not to be lossless")
    files.add_argument("--overwrite", action="store_true", help="do pictures again that are there already")
    run = found.add_argument_group("how it runs")
    run.add_argument("--precision", choices=PRECISIONS, help="(default bf16 on a GPU of NVIDIA's, else no)")
    run.add_argument("--device", default="", help="cpu, cuda, cuda:1, mps; by default cuda where there is one")
    found.add_argument("--version", action="version", version=f"lora_trainer {__version__}")
    return found


def _restore_all(options: argparse.Namespace) -> int:
    _refuse_contradictions(options)
    from lora_trainer.data.picture_results import format_of, planned_results, texts_beside
    from lora_trainer.engine.console import set_up_logging

    set_up_logging(True)
    results, clashes = planned_results(options.input, options.output, options.format)
    if options.quality is not None and format_of(results[0]) == "png":
        raise Refusal("--quality: png loses nothing; give --format jpg or webp, or leave it out")
    waiting = [each for each in results if options.overwrite or not each.target.exists()]
    from lora_trainer.trainers.restoration.weights import chosen_weights, told

    weights = chosen_weights(options.weights, options.no_ema)
    facts = told(weights)
    if options.prompts is not None and not options.prompts.is_dir():
        raise Refusal(f"--prompts {options.prompts}: there is no such folder")
    plain = options.prompt if options.prompt is not None else facts.prompt if facts.prompt is not None else PROMPT
    prompts = dict.fromkeys((each.name for each in waiting), plain)
    if options.prompts is not None or options.captions_beside:
        prompts = texts_beside(waiting, options.prompts, options.prompt)
    began = time.monotonic()
    failures = list(clashes)
    if waiting:
        restorer = _restorer(options, weights, facts, prompts.values())
        began = time.monotonic()
        failures += _restore_each(restorer, waiting, prompts, options)
    for failure in failures:
        log.error("%s", failure)
    done = len(waiting) - len(failures) + len(clashes)
    log.info("%s", _told_at_end(options.output, done, len(results) - len(waiting), failures, time.monotonic() - began))
    return 1 if failures else 0


def _refuse_contradictions(options: argparse.Namespace) -> None:
    """What is wrong with the options themselves. Raises Refusal."""
    if options.seed is not None and not options.sample_latents:
        raise Refusal("--seed: without --sample-latents nothing is drawn; give both or none")
    if options.stride is not None and options.tile == 0:
        raise Refusal("--stride: --tile 0 is the whole picture at once; leave out one of them")


def _restorer(options: argparse.Namespace, weights: Path, facts: Told, prompts: Iterable[str]) -> Restorer:
    checkpoint = _base(options.base, weights, facts)  # first, as it takes no time
    wishes = _wishes(options, facts)
    from lora_trainer.engine.chosen_device import chosen_device
    from lora_trainer.engine.precision import choose_precision
    from lora_trainer.trainers.restoration.inference import open_restorer

    device = chosen_device(options.device, "--device")
    wanted = options.precision or ("bf16" if device.type == "cuda" else "no")
    precision, _ = choose_precision(wanted, device)
    if options.precision and precision.name != wanted:
        log.info("--precision %s: %s cannot do that; this run uses %s", wanted, device, precision.name)
    restorer = open_restorer(weights, checkpoint, prompts, wishes, precision, device)
    _refuse_other_prediction(weights, facts, restorer.painter.networks.prediction)
    tiling, colours = wishes.tiling, COLOUR_FIXES[0 if wishes.fixes_colours else 1]
    tiles = f"tiles of {tiling.tile_px} px, {tiling.stride_px} apart" if tiling.tile_px else "no tiles"
    steps = f"model_t {wishes.model_t}, coeff_t {wishes.coeff_t}"
    log.info("restoring with %s on %s: %s, %s, colour fix %s", weights, device, steps, tiles, colours)
    return restorer


def _wishes(options: argparse.Namespace, facts: Told) -> Wishes:
    """What the options say; where they are silent, what the file tells. Raises Refusal."""
    from lora_trainer.models.restoration.tiles import Tiling, refuse_tiling
    from lora_trainer.trainers.restoration.inference import Wishes

    trained = facts.out_size or TILE_PX
    tile = trained if options.tile is None else options.tile
    half = max(MULTIPLE, tile // 2 // MULTIPLE * MULTIPLE)
    tiling = Tiling(tile, (half if options.stride is None else options.stride) if tile else 0, options.window)
    refuse_tiling(tiling, MULTIPLE, "--tile", "--stride")
    seed = SEED if options.seed is None else options.seed
    return Wishes(
        _first(options.model_t, facts.model_t),
        _first(options.coeff_t, facts.coeff_t),
        tiling,
        least_px=tile or trained,
        factor=options.upscale or 1.0,
        longest_px=options.target_size or 0,
        fidelity=options.fidelity,
        fixes_colours=(options.colour_fix or facts.colour_fix or COLOUR_FIXES[0]) == COLOUR_FIXES[0],
        seed=seed if options.sample_latents else None,
        at_once=options.batch or _usual_batch(tile),
    )


def _usual_batch(tile_px: int) -> int:
    """So many tiles that they take the memory of one of the usual size."""
    return min(MOST_USUAL, max(1, (TILE_PX // tile_px) ** 2)) if tile_px else 1


def _first(option: int | None, told: int | None) -> int:
    return option if option is not None else told if told is not None else TIMESTEP


def _base(place: str, weights: Path, facts: Told) -> Checkpoint | None:
    """None for the stand-in, which is taken only where it is named, by the option or by the file. Raises Refusal."""
    from lora_trainer.config.restoration_model import STAND_IN
    from lora_trainer.models.restoration.base import CURE, find_base

    if (place or facts.base) == STAND_IN:
        log.info("the base model is %s, a tiny network that has learnt nothing", STAND_IN)
        return None
    if not place:
        if facts.base:
            raise Refusal(f"--base is needed: {weights} tells only the name of its base model, {facts.base}; {CURE}")
        raise Refusal(f"--base is needed: {weights} does not tell its base model; {CURE}")
    found = find_base(place, "--base")
    if facts.base and Path(place).name != facts.base:
        log.info("note: the LoRA was trained on %s, and --base is %s", facts.base, place)
    return found


def _refuse_other_prediction(weights: Path, facts: Told, prediction: str) -> None:
    if facts.prediction not in (None, prediction):
        raise Refusal(
            f"{weights} was trained on a base model that predicts {facts.prediction}, and this one predicts "
            f"{prediction}; give the base model that it was trained on"
        )


def _restore_each(
    restorer: Restorer, waiting: Sequence[Result], prompts: Mapping[str, str], options: argparse.Namespace
) -> list[str]:
    """A sentence for each that failed; the others go on."""
    from lora_trainer.engine.console import counted

    failures = []
    with counted("restoring", len(waiting)) as advance:
        for number, each in enumerate(waiting, 1):
            try:
                _restore(restorer, each, prompts[each.name], options.quality)
            except Exception as error:  # a person's file, or one that is too large: the others go on
                failures.append(f"{each.source}: {_reason(error, restorer)}")
            advance(number, len(waiting))
    return failures


def _restore(restorer: Restorer, result: Result, prompt: str, quality: int | None) -> None:
    from lora_trainer.data.picture_results import Picture, format_of, read_with_profile, write_result

    picture = read_with_profile(result.source)
    pixels = restorer.restored(picture.pixels, prompt, result.name)
    write_result(result.target, Picture(pixels, picture.profile), format_of(result), quality)


def _reason(error: Exception, restorer: Restorer) -> str:
    from lora_trainer.trainers.restoration.inference import NotFinite

    painter = restorer.painter
    if isinstance(error, NotFinite):
        halved = "; try --precision no" if painter.precision.name != "no" else ""
        return f"the networks make no picture of it (NaN){halved}"
    text = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, (RuntimeError, MemoryError)) and "memory" in text.lower():
        smaller = "a smaller --batch or --tile" if painter.tiling.tile_px else f"--tile {painter.least_px}"
        return f"{painter.device} has too little memory for it; try {smaller}"
    return text


def _told_at_end(output: Path, done: int, there: int, failures: Sequence[str], seconds: float) -> str:
    parts = [f"{done} {'picture' if done == 1 else 'pictures'} in {output}"]
    parts += [f"{seconds / done:.1f} s each"] if done else []
    parts += [f"{there} skipped that were there already (--overwrite does them again)"] if there else []
    parts += [f"{len(failures)} failed"] if failures else []
    return ", ".join(parts)


def _whole(text: str, least: int, largest: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= largest:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from {least} to {largest}")
    return int(text)


def _real(text: str, least: float, largest: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= largest:  # as of NaN
        raise argparse.ArgumentTypeError(f"{text} is no number from {least:g} to {largest:g}")
    return number


def _timestep(text: str) -> int:
    return _whole(text, 0, LAST_TIMESTEP)


def _factor(text: str) -> float:
    return _real(text, 1 / MOST_TIMES, MOST_TIMES)


def _share(text: str) -> float:
    return _real(text, 0.0, 1.0)


def _side(text: str) -> int:
    return _whole(text, 1, LARGEST_PX)


def _side_or_0(text: str) -> int:
    return _whole(text, 0, LARGEST_PX)


def _count(text: str) -> int:
    return _whole(text, 1, MOST_AT_ONCE)


def _seed(text: str) -> int:
    return _whole(text, 0, LARGEST_SEED)


def _quality(text: str) -> int:
    return _whole(text, 1, 100)


if __name__ == "__main__":
    sys.exit(main())
