"""The processes of a run and what they tell each other, on top of accelerate's launcher and devices."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, broadcast_object_list, gather_object
from torch import nn

from lora_trainer.errors import Refusal

T = TypeVar("T")

PLAIN = {
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.MULTI_NPU,
    DistributedType.MULTI_XPU,
}
SAME_STRIDES = "Grad strides do not match bucket view strides"  # of 1 x 1 kernels, where both say the same


class Processes:
    """This process among the others. Every method must be called by all of them, in the same order."""

    def __init__(self, logging_dir: str | None = None, trackers: tuple[str, ...] = ()) -> None:
        self.accelerator = Accelerator(
            mixed_precision="no",  # autocast is ours: accelerate would patch the forward of each prepared module
            dynamo_backend="no",
            log_with=list(trackers) or None,
            project_dir=logging_dir,
        )
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started > 1 and self.world == 1:
            raise Refusal(
                f"{started} processes were started, but without a GPU each would train on its own and write the same "
                "files; set ACCELERATE_USE_CPU=1 to share the work on the CPU, or start one process"
            )
        if self.accelerator.distributed_type not in PLAIN:
            raise Refusal(
                f"accelerate's configuration asks for {self.accelerator.distributed_type.value}, which is not yet "
                "supported; choose plain multi-GPU in `accelerate config`"
            )

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        return torch.device(self.accelerator.device)

    def wrap(self, module: nn.Module, leaves_weights_out: bool = False) -> nn.Module:
        """The module under DDP, or itself in a run of one process. DDP must know when a pass may leave weights out.

        All weights that are to be trained must require gradients now: DDP never synchronises those that were frozen at
        this moment, and says nothing about it.
        """
        if self.world == 1:
            return module
        self.accelerator.ddp_handler = DistributedDataParallelKwargs(
            gradient_as_bucket_view=True, find_unused_parameters=leaves_weights_out
        )
        wrapped: nn.Module = self.accelerator.prepare_model(module)
        if not isinstance(wrapped, nn.parallel.DistributedDataParallel):
            raise RuntimeError("a module without trainable weights was given to a training phase")
        warnings.filterwarnings("ignore", SAME_STRIDES, UserWarning)
        wrapped.broadcast_buffers = False  # no training reads what differs; as an argument its name is deprecated
        return wrapped

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up a small tensor over all processes, in place."""
        if self.world > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process. A synchronisation with the host, so not for every step on a GPU."""
        if self.world == 1:
            return flag
        return bool(self.sum_(torch.tensor([float(flag)], device=self.device)).item())

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Of each flag whether it holds in any process; one synchronisation for all of them."""
        if self.world == 1:
            return list(flags)
        return [found > 0 for found in self.sum_(torch.tensor(list(map(float, flags)), device=self.device)).tolist()]

    def gather(self, items: list[T]) -> list[T]:
        """The lists of all processes, joined in the order of their ranks."""
        if self.world == 1:
            return items
        return list(gather_object(items))

    def from_main(self, value: T) -> T:
        """What the main process has."""
        if self.world == 1:
            return value
        box: list[Any] = [value]
        broadcast_object_list(box, from_process=0)
        return box[0]  # type: ignore[no-any-return]

    def barrier(self) -> None:
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the group. What still refers to it must be gone, or its threads may abort the interpreter's end."""
        self.accelerator.free_memory()  # what it has prepared
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
