"""Draw the same prompts with the same seeds with a base model and with a LoRA in it, side by side.

python -m tools.before_after --base sdxl.safetensors --lora style.safetensors --prompts prompts.txt --output sheet.png
python -m tools.before_after --base sdxl.safetensors --lora style.safetensors --prompts "a cat --d 1" --output sheet.png
Prompts are written as those of previews are: --n negative, --w width, --h height, --d seed, --s steps, --l guidance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.errors import Refusal
from tools import lora_tools

if TYPE_CHECKING:
    import numpy as np

    from lora_trainer.models.base_model import BaseModel
    from lora_trainer.trainers.diffusion.sample_prompts import SamplePrompt
    from lora_trainer.trainers.diffusion.sampling import Drawing

STRENGTHS = (0.0, 0.5, 1.0)
SAMPLER = "euler"
WIDEST_PX, WORDS_PX = 384, 120  # of a picture on the sheet, and of the prompt beside a row of them


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a use that is refused."""
    return lora_tools.run(_draw_sheet, _parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = lora_tools.parser_of("before_after", __doc__)
    parser.add_argument("--base", required=True, type=Path, help="the base model: a file or a diffusers folder")
    parser.add_argument("--lora", required=True, type=Path, help="a LoRA file of any kind")
    parser.add_argument("--prompts", required=True, help="a .txt, .json or .toml file of prompts, or one prompt")
    parser.add_argument(
        "--strengths", nargs="+", type=float, default=list(STRENGTHS), help="how strong the LoRA is (default 0 0.5 1)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of prompts without one of their own (default 1)")
    parser.add_argument("--clip-skip", type=int, default=1, help="as in training (default 1)")
    parser.add_argument("--v-prediction", action="store_true", help="for a base model that does not tell that")
    lora_tools.add_device(parser)
    parser.add_argument("--output", required=True, type=Path, help="the sheet, a .png file")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there already")
    return parser


def _draw_sheet(options: argparse.Namespace) -> None:
    if options.output.suffix.lower() != ".png":
        raise Refusal(f"--output {options.output}: the sheet must end in .png; correct the name")
    if options.output.exists() and not options.overwrite:
        raise Refusal(f"--output {options.output} is there already; give another name, or --overwrite")
    from lora_trainer.trainers.diffusion.sample_prompts import read_prompts

    prompts = read_prompts(options.prompts, options.seed)
    if not prompts:
        raise Refusal(f"--prompts {options.prompts}: there is no prompt in it")
    from lora_trainer.models.adapter_file import read_adapter_file
    from lora_trainer.models.adapter_strength import live_adapter
    from lora_trainer.trainers.preview_sheet import Cell, write_grid

    file = read_adapter_file(options.lora)
    base = _base(options)
    adapter = live_adapter(base, file)
    drawing = _drawing(base, options)
    columns = []
    for strength in options.strengths:
        with adapter.at_strength(strength):
            columns.append([_picture(drawing, prompt) for prompt in prompts])
    rows = []
    for prompt, *pictures in zip(prompts, *columns, strict=True):
        titles = [f"strength {strength:g}" if strength else "base" for strength in options.strengths]
        cells = [Cell(*each) for each in zip(pictures, titles if not rows else [""] * len(titles), strict=True)]
        rows.append([Cell(_words(prompt.text, pictures[0].shape[0])), *cells])
    write_grid(options.output, rows, f"{options.lora.stem} in {options.base.stem}")
    print(f"{options.output}: {len(prompts)} prompts at the strengths {', '.join(f'{s:g}' for s in options.strengths)}")


def _base(options: argparse.Namespace) -> BaseModel:
    from dataclasses import replace

    import torch

    from lora_trainer.models.base_model import load_base_model
    from lora_trainer.models.detect import detect

    device = lora_tools.device_of(options.device)
    checkpoint = detect(options.base)
    if options.v_prediction:
        checkpoint = replace(checkpoint, prediction="v_prediction")
    base = load_base_model(checkpoint, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32)
    for model in (base.unet, base.vae, *base.text_encoders):
        model.to(device)
    return base


def _drawing(base: BaseModel, options: argparse.Namespace) -> Drawing:
    from lora_trainer.trainers.diffusion.sampling import Drawing, Sampler

    sampler = Sampler(SAMPLER, base.prediction == "v_prediction", base.zero_terminal_snr)
    encoders, tokenizers = base.text_encoders, base.tokenizers
    return Drawing(base.kind, base.unet, base.vae, encoders, tokenizers, options.clip_skip, sampler)


def _picture(drawing: Drawing, prompt: SamplePrompt) -> np.ndarray:
    import numpy as np

    image = drawing.draw(prompt)
    if image.width > WIDEST_PX:
        image = image.resize((WIDEST_PX, round(image.height * WIDEST_PX / image.width)))
    return np.array(image)


def _words(text: str, height_px: int) -> np.ndarray:
    """The prompt in lines, as a picture of its own."""
    import textwrap

    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from lora_trainer.trainers.preview_sheet import FONT_PX, INK, PAPER

    image = Image.new("RGB", (WORDS_PX, height_px), PAPER)
    lines = textwrap.wrap(text, WORDS_PX * 2 // FONT_PX)
    ImageDraw.Draw(image).multiline_text((0, 4), "\n".join(lines), INK, font=ImageFont.load_default(FONT_PX))
    return np.array(image)


if __name__ == "__main__":
    sys.exit(main())
