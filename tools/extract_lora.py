"""Take a LoRA out of a tuned model: what makes it of its original, as near as the ranks allow.

python -m tools.extract_lora --original sdxl.safetensors --tuned mine.safetensors --rank 32 --output lora.safetensors
python -m tools.extract_lora --original sd15 --tuned mine.ckpt --sv-fro 0.95 --conv-rank 16 --output lora.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lora_trainer.errors import Refusal
from tools import lora_tools

CLAMP_QUANTILE, LEAST_DIFFERENCE = 1.0, 0.001


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use that is refused."""
    return lora_tools.run(_extract, _parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = lora_tools.parser_of("extract_lora", __doc__)
    parser.add_argument(
        "--original", required=True, type=Path, help="the model before: a checkpoint or diffusers folder"
    )
    parser.add_argument("--tuned", required=True, type=Path, help="the model after, likewise")
    parser.add_argument(
        "--rank", type=lora_tools.rank, help="of every layer, or its limit where singular values decide"
    )
    parser.add_argument(
        "--conv-rank", type=lora_tools.rank, help="take the residual blocks too, 3 x 3 kernels with this"
    )
    lora_tools.add_methods(parser)
    parser.add_argument(
        "--clamp-quantile",
        type=lora_tools.share,
        default=CLAMP_QUANTILE,
        help="cut larger numbers off; sd-scripts does it at 0.99 (default: none are cut)",
    )
    parser.add_argument(
        "--min-diff",
        type=float,
        default=LEAST_DIFFERENCE,
        help=f"leave out text encoders without a change of this size (default {LEAST_DIFFERENCE})",
    )
    parser.add_argument("--verbose", action="store_true", help="tell of each layer")
    lora_tools.add_precision(parser, "fp16", "float")
    lora_tools.add_device(parser)
    lora_tools.add_output(parser, "a .safetensors file")
    return parser


def _extract(options: argparse.Namespace) -> None:
    linear = lora_tools.rank_rule(options, options.rank)
    if not linear.method and not options.rank:
        raise Refusal("say how large: --rank, --sv-ratio, --sv-fro or --sv-cumulative")
    wide = lora_tools.rank_rule(options, options.conv_rank) if options.conv_rank else None
    lora_tools.check_output(options.output, [options.original, options.tuned], options.overwrite)

    from lora_trainer.models.adapter_extract import ExtractRules, extract_adapter
    from lora_trainer.models.adapter_facts import base_facts, made_by, network_facts
    from lora_trainer.models.adapter_file import PRECISIONS, write_adapter_file
    from lora_trainer.models.adapter_resize import rank_range
    from lora_trainer.models.base_weights import open_base

    rules = ExtractRules(linear, wide, options.clamp_quantile, options.min_diff)
    device = lora_tools.device_of(options.device)
    with open_base(options.original) as original, open_base(options.tuned) as tuned:
        found = extract_adapter(original, tuned, rules, device, _progress)
        facts = {
            **base_facts(original.kind, _predicts_v(options.original, options.tuned)),
            **network_facts(found.layers),
        }
    facts |= made_by(options.output.stem, f"extracted from {options.tuned.name} - {options.original.name}", {})
    facts["ss_sd_model_name"] = options.original.name
    write_adapter_file(options.output, found.layers, PRECISIONS.get(options.precision, PRECISIONS["float"]), facts)
    if options.verbose:
        lora_tools.print_layers(found.reports)
    for part in found.untouched:
        print(f"{part} is left out, it is the same in both models (--min-diff {options.min_diff:g})")
    lora_tools.print_losses(found.reports)
    size = lora_tools.size_of(options.output)
    print(f"{options.output}: {len(found.layers)} layers, rank {rank_range(found.layers)}, {size}")


def _predicts_v(*paths: Path) -> bool:
    from lora_trainer.models.detect import detect

    return any(detect(path).prediction == "v_prediction" for path in paths)


def _progress(names: list[str]) -> Iterable[str]:
    from rich.progress import track

    return track(names, description="layers", disable=not sys.stderr.isatty())


if __name__ == "__main__":
    sys.exit(main())
