"""Write an upscaler as ONNX, and check that onnxruntime makes the same pictures of it.

python -m tools.export_onnx output/span_4x/span_4x.safetensors
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
SIZES_PX = ((64, 48), (40, 72))  # at which the pictures are compared; the first one is traced
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
OPSET = 18


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 when the pictures differ, 2 for a use that is refused."""
    parser = argparse.ArgumentParser(prog="export_onnx", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="a .safetensors or .pth file")
    parser.add_argument("target", type=Path, nargs="?", help="the .onnx file (default: the model's name)")
    parser.add_argument("--fp16", action="store_true", help="weights and sums in half precision")
    options = parser.parse_args(arguments)
    target = options.target or options.model.with_suffix(".onnx")
    try:
        return _export(options.model, target, "fp16" if options.fp16 else "fp32")
    except Refusal as refusal:
        print("\n".join(refusal.problems), file=sys.stderr)
        return refusal.exit_status


def _export(source: Path, target: Path, precision: str) -> int:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise Refusal(f"{', '.join(missing)} not installed: pip install lora_trainer[onnx]")
    import torch

    from lora_trainer.models.sr_file import network_from_file, read_metadata

    model = network_from_file(source)
    module = model.model.eval().requires_grad_(False)
    if precision == "fp16":
        module = module.half()
    with tempfile.TemporaryDirectory() as folder:
        unfinished = Path(folder) / "model.onnx"
        _write(module, unfinished, torch.float16 if precision == "fp16" else torch.float32)
        _add_metadata(unfinished, {"scale": str(model.scale), **read_metadata(source)})
        largest = max(_difference(module, unfinished, size, precision) for size in SIZES_PX)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, unfinished.read_bytes())
    print(f"{target}: {model.architecture.name} {model.scale}x, {precision}; largest difference {largest:.1e}")
    if not largest <= TOLERANCE[precision]:
        print(f"more than {TOLERANCE[precision]:.0e}: this file makes other pictures than the model", file=sys.stderr)
        return 1
    return 0


def _write(module: Any, path: Path, dtype: Any) -> None:
    import torch

    example = torch.rand(1, 3, *SIZES_PX[0], dtype=dtype)
    axes = {"input": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch", 2: "out_height", 3: "out_width"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old exporter is the one that keeps sizes free in every architecture
        torch.onnx.export(
            module, (example,), str(path), input_names=["input"], output_names=["output"], opset_version=OPSET,
            dynamic_axes=axes, dynamo=False,
        )  # fmt: skip


def _add_metadata(path: Path, metadata: dict[str, str]) -> None:
    import onnx

    model = onnx.load(str(path))
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _difference(module: Any, path: Path, size_px: tuple[int, int], precision: str) -> float:
    """The largest difference of a pixel between the model and its ONNX file, for a picture of this size."""
    import numpy as np
    import onnxruntime
    import torch

    picture = torch.rand(1, 3, *size_px, generator=torch.Generator().manual_seed(0))
    picture = picture.half() if precision == "fp16" else picture
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": picture.numpy()})[0]
    with torch.inference_mode():
        wanted = module(picture).float().numpy()
    return float(np.abs(found.astype(np.float32) - wanted).max())


if __name__ == "__main__":
    sys.exit(main())
