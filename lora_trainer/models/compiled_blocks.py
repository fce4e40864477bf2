"""torch.compile of a UNet's transformer blocks and resnets, each shape by itself; eager again where a compiler fails.

Blocks of one class share what was compiled for them, so that a UNet costs a few compilations for each shape and not
one for each block. Weights keep their names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from lora_trainer.user_cache import user_cache

log = logging.getLogger(__name__)

BLOCKS = (BasicTransformerBlock, ResnetBlock2D)
MOST_VARIANTS = 256  # of one class: widths times shapes times with and without gradients; PyTorch's limit is 8
CACHE = "TORCHINDUCTOR_CACHE_DIR"


def compile_blocks(model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> int:
    """Have the blocks compiled when they are first used; gives how many they are.

    What was compiled is kept for later runs: in the folder of PyTorch's own variable, or in the person's cache folder.
    """
    if os.environ.get(CACHE) in (None, _passing_place()):
        os.environ[CACHE] = str(user_cache("compiled"))
    _set_up()
    blocks = [layer for layer in model.modules() if isinstance(layer, BLOCKS)]
    for block in blocks:
        compiled = torch.compile(block._call_impl, backend=backend, dynamic=False)
        block._compiled_call_impl = _EagerOnFailure(block, compiled, blocks)
    return len(blocks)


class _EagerOnFailure:
    """A compiled block. At the first failure all of the model's blocks go back to what they were, with one line."""

    def __init__(self, block: nn.Module, compiled: Callable[..., Any], blocks: Sequence[nn.Module]) -> None:
        self.block, self.compiled, self.blocks = block, compiled, blocks

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.compiled(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:  # of the compiler, and not of the block
            first = str(error).strip().partition("\n")[0]
            log.warning("torch_compile: going on without, as %s: %s", type(error).__name__, first)
        for block in self.blocks:
            block._compiled_call_impl = None
        return self.block._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]


def _passing_place() -> str:
    """Where PyTorch keeps it otherwise, which a system clears; it writes that into the variable as soon as any package
    asks for it."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    return str(default_cache_dir())


def _set_up() -> None:
    config: Any = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, name, max(getattr(config, name), MOST_VARIANTS))
    import torch._functorch.config as backward

    if hasattr(backward, "force_non_lazy_backward_lowering"):
        backward.force_non_lazy_backward_lowering = True  # in the forward pass, where a failure can still be mended
    if hasattr(config, "accumulated_recompile_limit"):
        config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 8 * MOST_VARIANTS)
