"""Merge LoRAs of any kind into each other, or into a base model.

python -m tools.merge_lora style.safetensors face.safetensors --ratio 0.8 0.6 --output both.safetensors
python -m tools.merge_lora style.safetensors face.safetensors --rank 32 --output both.safetensors
python -m tools.merge_lora style.safetensors --base sdxl.safetensors --precision fp16 --output merged.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.errors import Refusal
from tools import lora_tools

if TYPE_CHECKING:
    from lora_trainer.models.adapter_file import AdapterFile


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use that is refused."""
    return lora_tools.run(_merge, _parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = lora_tools.parser_of("merge_lora", __doc__)
    parser.add_argument("loras", nargs="+", type=Path, metavar="LORA", help=".safetensors, .ckpt or .pt files")
    parser.add_argument(
        "--ratio", nargs="+", type=float, help="how much of each one, or one number for all (default 1)"
    )
    parser.add_argument("--base", type=Path, help="the checkpoint or diffusers folder to merge into")
    parser.add_argument(
        "--rank", type=lora_tools.rank, help="of the merged LoRA; without it all ranks are put side by side, exactly"
    )
    parser.add_argument("--conv-rank", type=lora_tools.rank, help="of 3 x 3 convolutions (default: the rank)")
    lora_tools.add_precision(parser, "same", "as the first file, or as each tensor of the base")
    lora_tools.add_device(parser)
    lora_tools.add_output(parser, "a .safetensors file, or a new folder for a base that is a folder")
    return parser


def _merge(options: argparse.Namespace) -> None:
    ratios = options.ratio or [1.0]
    if len(ratios) not in (1, len(options.loras)):
        raise Refusal(f"--ratio has {len(ratios)} numbers for {len(options.loras)} files; give one for each, or one")
    ratios = ratios * len(options.loras) if len(ratios) == 1 else ratios
    if options.conv_rank and not options.rank:
        raise Refusal("--conv-rank is for --rank; give that as well")
    if options.base and options.rank:
        raise Refusal("--rank is for merging LoRAs into each other and has no part in --base; leave it out")
    inputs = [*options.loras, *([options.base] if options.base else [])]
    folder = bool(options.base and options.base.is_dir())
    lora_tools.check_output(options.output, inputs, options.overwrite, folder)

    from lora_trainer.models.adapter_file import read_adapter_file

    files = [read_adapter_file(path) for path in options.loras]
    if options.base:
        _into_base(options, files, ratios)
    else:
        _into_each_other(options, files, ratios)


def _into_base(options: argparse.Namespace, files: Sequence[AdapterFile], ratios: Sequence[float]) -> None:
    from lora_trainer.models.adapter_file import PRECISIONS
    from lora_trainer.models.base_merge import plan_edits, write_merged
    from lora_trainer.models.base_weights import open_base

    device = lora_tools.device_of(options.device)
    names = [f"{path.name} x {ratio:g}" for path, ratio in zip(options.loras, ratios, strict=True)]
    with open_base(options.base) as base:
        edits = plan_edits(base, files, ratios)
        write_merged(base, edits, options.output, PRECISIONS.get(options.precision), device, names)
    layers = sum(len(of_tensor) for of_tensor in edits.values())
    print(f"{options.output}: {', '.join(names)} in {layers} layers, {lora_tools.size_of(options.output)}")


def _into_each_other(options: argparse.Namespace, files: Sequence[AdapterFile], ratios: Sequence[float]) -> None:
    from lora_trainer.models.adapter_facts import MERGED_FROM, agreed, base_facts, made_by, network_facts
    from lora_trainer.models.adapter_file import PRECISIONS, write_adapter_file
    from lora_trainer.models.adapter_merge import common_kind, merge_adapters
    from lora_trainer.models.adapter_resize import rank_range
    from lora_trainer.models.low_rank import RankRule

    ranks = None
    if options.rank:
        ranks = (RankRule(options.rank), RankRule(options.conv_rank or options.rank))
    layers, reports = merge_adapters(files, ratios, ranks, lora_tools.device_of(options.device))
    if not layers:
        raise Refusal("--ratio is 0 for all files, so nothing is left; give other numbers")
    kind, kept = common_kind(files), agreed([file.metadata for file in files])
    names = [f"{path.name} x {ratio:g}" for path, ratio in zip(options.loras, ratios, strict=True)]
    # how the single files were trained says nothing about their sum, but for one of them
    facts = kept if len(files) == 1 else _of_any_sum(kept)
    facts |= {**(base_facts(kind) if kind else {}), **_prediction(kept), **network_facts(layers)}
    facts |= made_by(options.output.stem, f"merged: {', '.join(names)}", facts)
    facts[MERGED_FROM] = ", ".join(names)
    write_adapter_file(options.output, layers, PRECISIONS.get(options.precision, files[0].dtype), facts)
    lora_tools.print_losses(reports)
    ranks = f", rank {rank_range(layers)}" if reports else ""
    print(f"{options.output}: {len(layers)} layers{ranks}, {lora_tools.size_of(options.output)}")


def _of_any_sum(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key in _STAY}


_STAY = (
    "ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_vae_name", "ss_vae_hash", "ss_new_vae_hash",
    "ss_clip_skip", "ss_resolution", "modelspec.resolution", "modelspec.author", "modelspec.license",
    "modelspec.encoder_layer", "modelspec.implementation",
)  # fmt: skip


def _prediction(metadata: Mapping[str, str]) -> dict[str, str]:
    """What the base predicts, where all files agree."""
    keys = ("ss_base_model_version", "modelspec.prediction_type", "modelspec.architecture")
    return {key: metadata[key] for key in keys if key in metadata}


if __name__ == "__main__":
    sys.exit(main())
