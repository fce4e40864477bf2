"""Write an upscaler or a GAN's generator as ONNX, and check that onnxruntime makes the same pictures of it.

python -m tools.export_onnx output/span_4x/span_4x.safetensors
python -m tools.export_onnx hat.safetensors --size 256
python -m tools.export_onnx network-snapshot-005000.safetensors
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_trainer.atomic import write_bytes
from lora_trainer.errors import Refusal

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
SIZES_PX: tuple[tuple[int, int], ...] = (
    (64, 48),
    (40, 72),
)  # (height, width) at which the pictures are compared; the first one is traced
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
OPSET = 18


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 when the pictures differ, 2 for a use that is refused."""
    parser = argparse.ArgumentParser(prog="export_onnx", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help=".safetensors, .pth, or a GAN's snapshot")
    parser.add_argument("target", type=Path, nargs="?", help="the .onnx file (default: the model's name)")
    parser.add_argument("--fp16", action="store_true", help="weights and sums in half precision")
    parser.add_argument("--size", type=int, help="for pictures of this side only, where a network does not do without")
    options = parser.parse_args(arguments)
    try:
        return _export(options.model, options.target, "fp16" if options.fp16 else "fp32", options.size)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_status


def _export(source: Path, target: Path | None, precision: str, side_px: int | None) -> int:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise Refusal(f"{', '.join(missing)} not installed: pip install lora_trainer[onnx]")
    from tools.gan_onnx import is_gan

    if is_gan(source):
        if precision == "fp16" or side_px:
            raise Refusal(f"{source}: a generator is written in fp32 and its own size; leave out --fp16 and --size")
        return _export_gan(source, target or source.with_suffix(".onnx"))
    from lora_trainer.models.sr_file import network_from_file, read_metadata

    model = network_from_file(source)
    name, target = model.architecture.name, target or source.with_suffix(".onnx")
    if precision == "fp16" and not model.supports_half:
        raise Refusal(f"{source}: {name} overflows in half precision; leave out --fp16")
    pictures = _pictures(model, precision, side_px)
    module = model.model.eval().requires_grad_(False)
    if precision == "fp16":
        module = module.half()
    metadata = {"scale": str(model.scale), "size_multiple": str(model.size_requirements.multiple_of)}
    with tempfile.TemporaryDirectory() as folder:
        unfinished = Path(folder) / "model.onnx"
        _write(module, unfinished, pictures[0], any_size=side_px is None)
        _add_metadata(unfinished, {**metadata, **read_metadata(source)})
        largest = max(_difference(module, unfinished, picture, side_px is None) for picture in pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, unfinished.read_bytes())
    sizes = f"{side_px} x {side_px} pixels" if side_px else "any size"
    print(f"{target}: {name} {model.scale}x, {sizes}, {precision}; largest difference {largest:.1e}")
    if not largest <= TOLERANCE[precision]:
        print(f"more than {TOLERANCE[precision]:.0e}: this file makes other pictures than the model", file=sys.stderr)
        return 1
    return 0


def _export_gan(source: Path, target: Path) -> int:
    from tools.gan_onnx import TOLERANCE as GAN_TOLERANCE
    from tools.gan_onnx import export_gan

    name, largest = export_gan(source, target, OPSET)
    print(f"{target}: {name}; largest difference {largest:.1e}")
    if not largest <= GAN_TOLERANCE:
        print(f"more than {GAN_TOLERANCE:.0e}: this file makes other images than the snapshot", file=sys.stderr)
        return 1
    return 0


def _pictures(model: Any, precision: str, side_px: int | None) -> list[Any]:
    """Noise (1, c, h, w) of the sizes at which the file is compared, as the network takes them. Raises Refusal."""
    import torch

    needs = model.size_requirements
    if side_px is None:
        wanted = SIZES_PX
    elif side_px >= max(1, needs.minimum) and side_px % needs.multiple_of == 0:
        wanted = ((side_px, side_px),)
    else:
        least = f"at least {needs.minimum} and " if needs.minimum else ""
        raise Refusal(f"--size {side_px}: {model.architecture.name} takes {least}multiples of {needs.multiple_of}")
    generator = torch.Generator().manual_seed(0)
    pictures = []
    for height, width in wanted:
        right, bottom = needs.get_padding(width, height)
        noise = torch.rand(1, model.input_channels, height + bottom, width + right, generator=generator)
        pictures.append(noise.half() if precision == "fp16" else noise)
    return pictures


def _write(module: Any, path: Path, picture: Any, any_size: bool) -> None:
    import torch

    axes = {"input": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch", 2: "out_height", 3: "out_width"}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the old exporter is the one that keeps sizes free in most architectures
            torch.onnx.export(
                module, (picture,), str(path), input_names=["input"], output_names=["output"], opset_version=OPSET,
                dynamic_axes=axes if any_size else None, dynamo=False,
            )  # fmt: skip
    except Exception as error:  # an operator that ONNX lacks, and whatever else tracing a network meets
        raise Refusal(f"this network cannot be written as ONNX ({str(error).splitlines()[0][:200]})") from error


def _add_metadata(path: Path, metadata: dict[str, str]) -> None:
    import onnx

    model = onnx.load(str(path))
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _difference(module: Any, path: Path, picture: Any, any_size: bool) -> float:
    """The largest difference of a pixel between the model and its ONNX file. Raises Refusal when the file fails."""
    import numpy as np
    import onnxruntime
    import torch

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # what it has to say is in its exception
    with torch.inference_mode():
        wanted = module(picture).float().numpy()
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        found = session.run(None, {"input": picture.numpy()})[0]
    except Exception as error:  # of a dozen classes of its own
        raise Refusal(_fails(picture, any_size, str(error))) from error
    if found.shape != wanted.shape:
        raise Refusal(_fails(picture, any_size, f"it makes {found.shape}, not {wanted.shape}"))
    return float(np.abs(found.astype(np.float32) - wanted).max())


def _fails(picture: Any, any_size: bool, reason: str) -> str:
    height, width = picture.shape[-2:]
    cure = "this network may do with a file for one size: --size 256" if any_size else "use the model itself"
    reason = reason.splitlines()[0][:300]
    return f"nothing is written, as onnxruntime fails at {width} x {height} pixels ({reason}); {cure}"


if __name__ == "__main__":
    sys.exit(main())
