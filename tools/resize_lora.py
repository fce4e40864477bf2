"""Give a LoRA fewer ranks: a number, or as many as each layer's singular values call for.

python -m tools.resize_lora style.safetensors --rank 16 --output small.safetensors
python -m tools.resize_lora style.safetensors --sv-fro 0.9 --verbose --output small.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_trainer.errors import Refusal
from tools import lora_tools


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use that is refused."""
    return lora_tools.run(_resize, _parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = lora_tools.parser_of("resize_lora", __doc__)
    parser.add_argument("lora", type=Path, help="a .safetensors, .ckpt or .pt file")
    parser.add_argument("--rank", type=lora_tools.rank, help="of the result, or its limit where singular values decide")
    parser.add_argument("--conv-rank", type=lora_tools.rank, help="of 3 x 3 convolutions (default: the rank)")
    lora_tools.add_methods(parser)
    parser.add_argument("--verbose", action="store_true", help="tell of each layer")
    lora_tools.add_precision(parser, "same", "as the file")
    lora_tools.add_device(parser)
    lora_tools.add_output(parser, "a .safetensors file")
    return parser


def _resize(options: argparse.Namespace) -> None:
    linear = lora_tools.rank_rule(options, options.rank)
    if not linear.method and not options.rank:
        raise Refusal("say how small: --rank, --sv-ratio, --sv-fro or --sv-cumulative")
    wide = lora_tools.rank_rule(options, options.conv_rank or options.rank)
    lora_tools.check_output(options.output, [options.lora], options.overwrite)

    from lora_trainer.models.adapter_facts import HASHES, made_by, network_facts
    from lora_trainer.models.adapter_file import PRECISIONS, read_adapter_file, write_adapter_file
    from lora_trainer.models.adapter_resize import rank_range, resize_adapter

    file = read_adapter_file(options.lora)
    if file.naming == "diffusers":
        raise Refusal(f"{options.lora}: this file has diffusers' names; convert it first (convert_lora --to kohya)")
    layers, reports = resize_adapter(file, linear, wide, lora_tools.device_of(options.device))
    if options.verbose:
        lora_tools.print_layers(reports)
    before, after = rank_range(file.layers), rank_range(layers)
    how = f" by {linear.method} {linear.amount:g}" if linear.method else ""
    facts = {key: value for key, value in file.metadata.items() if key not in HASHES}
    facts |= network_facts(layers, file.metadata)
    facts |= made_by(options.output.stem, f"resized from rank {before} to {after}{how}", file.metadata)
    write_adapter_file(options.output, layers, PRECISIONS.get(options.precision), facts)
    lora_tools.print_losses(reports)
    print(f"{options.output}: rank {before} -> {after}, {lora_tools.size_of(options.output)}")


if __name__ == "__main__":
    sys.exit(main())
