"""In which number format a step is calculated: fp16 with a gradient scaler, bf16, or fp32."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "no": torch.float32}
INITIAL_SCALE = 2.0**16


@dataclass(frozen=True)
class Precision:
    """The name as presets spell it, and the format of the frozen weights and of the matrix products."""

    name: str
    device_type: str

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.name]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.name == "no":
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, self.dtype)

    def scaler(self) -> torch.amp.GradScaler | None:
        """fp16 alone needs one: its smallest gradients would vanish."""
        return Scaler(self.device_type, init_scale=INITIAL_SCALE) if self.name == "fp16" else None


class Scaler(torch.amp.GradScaler):
    """PyTorch's, for weights in fp16 too, whose gradients it would refuse to bring back to their size."""

    def _unscale_grads_(self, optimizer: Any, inv_scale: Any, found_inf: Any, allow_fp16: bool) -> Any:
        return super()._unscale_grads_(optimizer, inv_scale, found_inf, True)


def choose_precision(wanted: str, device: torch.device) -> tuple[Precision, str | None]:
    """What the device can do of what the preset says, and the line that tells when that is something else."""
    name, note = wanted, None
    if device.type == "cpu":
        if wanted == "fp16":
            name = "bf16" if _cpu_has_bf16() else "no"
            note = f'mixed_precision "fp16": a CPU cannot train in fp16; this run uses {_spoken(name)}'
        elif wanted == "bf16" and not _cpu_has_bf16():
            note = 'mixed_precision "bf16": this CPU has no bf16 instructions; it works, but "no" is faster here'
    elif device.type == "cuda" and wanted == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = "fp16"
        note = 'mixed_precision "bf16": this card has no bf16; this run uses fp16'
    elif device.type == "mps" and wanted == "fp16":
        name = "bf16"
        note = 'mixed_precision "fp16": on Apple\'s GPU this run uses bf16'
    return Precision(name, device.type), note


def _spoken(name: str) -> str:
    return {"no": "fp32"}.get(name, name)


def _cpu_has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
