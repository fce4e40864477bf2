"""A GAN's generator as ONNX: latents and a truncation go in, images from -1 to 1 come out."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.atomic import write_bytes
from lora_trainer.errors import Refusal

if TYPE_CHECKING:
    import torch

    from lora_trainer.models.gan.generation import TrainedGenerator

BATCHES = (2, 1, 3)  # at which the images are compared; the first one is traced
TRUNCATION = 0.7
TOLERANCE = 2e-3  # a quarter of a step of an 8-bit image
SNAPSHOT_TYPE = "lora_trainer gan"


def is_gan(source: Path) -> bool:
    """Whether it is a snapshot of ours or an official one, rather than an upscaler."""
    from lora_trainer.models.safetensors_header import read_header

    if source.suffix == ".pkl":
        return True
    if source.suffix != ".safetensors" or not source.is_file():
        return False
    return read_header(source).metadata.get("type", "").startswith(SNAPSHOT_TYPE)


def export_gan(source: Path, target: Path, opset: int) -> tuple[str, float]:
    """Write the file, and give what it is and its largest difference from the network. Raises Refusal.

    The inputs are `z` (batch, z_dim), `truncation_psi` and, with classes, `label` (batch, c_dim); of r3gan, which has
    no truncation, without it. Noise is that of `const`.
    """
    from lora_trainer.models.gan.generation import read_generator

    generator = read_generator(source)
    module = _painter(generator)
    with tempfile.TemporaryDirectory() as folder:
        unfinished = Path(folder) / "model.onnx"
        _write(module, _inputs(generator, BATCHES[0]), unfinished, opset)
        _describe(unfinished, generator)
        largest = max(_difference(module, unfinished, _inputs(generator, count)) for count in BATCHES)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, unfinished.read_bytes())
    takes = ", ".join(_inputs(generator, 1))
    return f"{generator.cfg} of {generator.resolution} px, any number of images, from {takes}", largest


def _painter(generator: TrainedGenerator) -> torch.nn.Module:
    from torch import Tensor, nn

    network = generator.network
    options: dict[str, Any] = {"force_fp32": True}
    if hasattr(network.synthesis, "noise_size"):
        options["noise"] = "const"

    class Painter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, z: Tensor, *others: Tensor) -> Tensor:
            label = others[-1] if network.c_dim else None
            ws = network.mapping(z, label)
            if hasattr(network.mapping, "w_avg"):
                ws = network.mapping.w_avg + (ws - network.mapping.w_avg) * others[0]
            images: Tensor = network.synthesis(ws, **options)
            return images

    return Painter().eval().requires_grad_(False)


def _inputs(generator: TrainedGenerator, count: int) -> dict[str, torch.Tensor]:
    import torch

    network = generator.network
    draws = torch.Generator().manual_seed(count)
    found = {"z": torch.randn(count, network.z_dim, generator=draws)}
    if hasattr(network.mapping, "w_avg"):
        found["truncation_psi"] = torch.tensor(TRUNCATION)
    if network.c_dim:
        found["label"] = torch.eye(network.c_dim)[torch.arange(count) % network.c_dim]
    return found


def _write(module: torch.nn.Module, inputs: dict[str, torch.Tensor], path: Path, opset: int) -> None:
    import torch

    axes = {name: {0: "batch"} for name in ("z", "label", "images") if name in inputs or name == "images"}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # sizes are meant to be constants, but for the batch
            module(*inputs.values())  # filters and matrices are worked out now, and are constants in the trace
            torch.onnx.export(
                module, tuple(inputs.values()), str(path), input_names=list(inputs), output_names=["images"],
                opset_version=opset, dynamic_axes=axes, dynamo=False, do_constant_folding=False,
            )  # fmt: skip
    except Exception as error:  # an operator that ONNX lacks, and whatever else tracing a network meets
        raise Refusal(f"this network cannot be written as ONNX ({str(error).splitlines()[0][:200]})") from error


def _describe(path: Path, generator: TrainedGenerator) -> None:
    import onnx

    model = onnx.load(str(path))
    facts = {"type": generator.cfg, "resolution": str(generator.resolution), "c_dim": str(generator.network.c_dim)}
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _difference(module: torch.nn.Module, path: Path, inputs: dict[str, torch.Tensor]) -> float:
    """The largest of any pixel, where images go beyond -1 to 1 in units of how far. Raises Refusal."""
    import numpy as np
    import onnxruntime
    import torch

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # what it has to say is in its exception
    with torch.no_grad():
        wanted = module(*inputs.values()).numpy()
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
    except Exception as error:  # of a dozen classes of its own
        reason = str(error).splitlines()[0][:300]
        raise Refusal(f"nothing is written, as onnxruntime fails ({reason}); use the snapshot itself") from error
    if found.shape != wanted.shape:
        raise Refusal(f"nothing is written, as onnxruntime makes {found.shape}, not {wanted.shape}")
    return float((np.abs(found - wanted) / np.maximum(np.abs(wanted), 1)).max())
