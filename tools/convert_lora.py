"""Convert a LoRA between kohya's names (A1111, Forge, ComfyUI) and those of diffusers and peft.

python -m tools.convert_lora style.safetensors --to diffusers --output style_diffusers.safetensors
python -m tools.convert_lora pytorch_lora_weights.safetensors --to kohya --output style.safetensors
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
    return lora_tools.run(_convert, _parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = lora_tools.parser_of("convert_lora", __doc__)
    parser.add_argument("lora", type=Path, help="a .safetensors, .ckpt or .pt file")
    parser.add_argument("--to", required=True, choices=("kohya", "diffusers"), help="whose names the result has")
    parser.add_argument(
        "--base", choices=("sd15", "sd21", "sdxl"), help="for which models it is, where it does not tell"
    )
    lora_tools.add_output(parser, "a .safetensors file")
    return parser


def _convert(options: argparse.Namespace) -> None:
    lora_tools.check_output(options.output, [options.lora], options.overwrite)

    from lora_trainer.models.adapter_convert import to_diffusers, to_kohya
    from lora_trainer.models.adapter_delta import has_tucker
    from lora_trainer.models.adapter_facts import HASHES
    from lora_trainer.models.adapter_file import adapter_tensors, read_adapter_file, write_tensors

    file = read_adapter_file(options.lora)
    kind = options.base or file.base_kind
    if kind is None:
        raise Refusal(f"{options.lora} does not tell for which models it is; add --base sd15, sd21 or sdxl")
    if options.to == "kohya":
        layers, metadata = to_kohya(file, kind)
        tensors = adapter_tensors(layers, None)
    else:
        tensors, metadata = to_diffusers(file, kind)
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        if has_tucker(file.layers.values()):
            print("Tucker cores are multiplied into the kernels, which diffusers needs; the effect is the same")
    metadata = {key: value for key, value in metadata.items() if key not in HASHES}
    write_tensors(options.output, tensors, metadata)
    print(f"{options.output}: {len(file.layers)} layers for {kind} in the names of {options.to}")


if __name__ == "__main__":
    sys.exit(main())
