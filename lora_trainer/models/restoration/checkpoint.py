"""The file that a restorer is taken away as: the LoRA's tensors under the UNet's own names, and nothing else.

`state_dict.pth` is what HYPIR's inference reads; a `.safetensors` file of the same tensors is safe to open. Names are
diffusers', as in `mid_block.attentions.0.proj_in.lora_A.default.weight`. There is no alpha: the scale is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lora_trainer.atomic import staged_file, write_bytes
from lora_trainer.errors import Refusal
from lora_trainer.models.adapters.layer import ADAPTER
from lora_trainer.models.file_kinds import known_stranger
from lora_trainer.models.restoration.file_names import AVERAGED, PLAIN
from lora_trainer.models.safetensors_bytes import safetensors_bytes
from lora_trainer.models.state_files import read_state_file

DOWN, UP = f"lora_A.{ADAPTER}.weight", f"lora_B.{ADAPTER}.weight"
_GIVE = f"give the {PLAIN}.pth or .safetensors of a restorer"
_LISTED = 3


def lora_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained, by its name in the files."""
    return {name: weight for path, layer in _layers(unet) for name, weight in _of_layer(path, layer)}


def lora_state(unet: nn.Module) -> dict[str, Tensor]:
    """Copies of it on the CPU. A scale other than 1 is taken into the second factor, as the files have no alpha."""
    state: dict[str, Tensor] = {}
    for path, layer in _layers(unet):
        scale = float(layer.scaling[ADAPTER])
        for name, weight in _of_layer(path, layer):
            scaled = weight.detach() * (scale if name.endswith(UP) else 1.0)
            state[name] = scaled.to("cpu").contiguous()
    return state


def write_restorer(folder: Path, state: Mapping[str, Tensor], name: str, metadata: Mapping[str, str]) -> list[Path]:
    """`name`.pth and `name`.safetensors in the folder; the same tensors always give the same bytes.

    `name` is `PLAIN`, or `AVERAGED` for the moving average. Returns the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch_file, safe_file = (folder / f"{name}{suffix}" for suffix in (".pth", ".safetensors"))
    with staged_file(torch_file) as file:
        torch.save(dict(state), file)  # to an open file: a path's name would be in the bytes
    write_bytes(safe_file, safetensors_bytes(state, metadata))
    return [torch_file, safe_file]


def read_restorer(path: Path) -> dict[str, Tensor]:
    """The LoRA of either file, on the CPU. Raises Refusal for what is none."""
    if not path.is_file():
        what = "this is a folder" if path.is_dir() else "there is no such file"
        raise Refusal(f"{path}: {what}; {_GIVE}")
    if stranger := known_stranger(path):
        raise Refusal(f"{path}: this is {stranger}; {_GIVE}")
    tensors = read_state_file(path).tensors
    strange = sorted(name for name in tensors if not name.endswith((f".{DOWN}", f".{UP}")))
    if strange or not tensors:
        found = f"it has {_some(strange)}" if strange else "it is empty"
        raise Refusal(
            f"{path}: this is no LoRA of a restorer, {found}; its tensors are named like conv_out.{DOWN}, so give a "
            f"{PLAIN}.pth, {AVERAGED}.pth or the .safetensors beside it"
        )
    return tensors


def diffusers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors as diffusers' `load_lora_weights` and `adapter_file.py` name them, for export to other tools."""
    return {f"unet.{name.replace(f'.{ADAPTER}.', '.')}": tensor for name, tensor in state.items()}


def modules_and_rank(path: Path, state: Mapping[str, Tensor]) -> tuple[tuple[str, ...], int]:
    """The paths of the layers that a file covers and its rank, to build the LoRA that it fits. Raises Refusal."""
    paths = [name.removesuffix(f".{DOWN}") for name in state if name.endswith(f".{DOWN}")]
    ranks = {tensor.shape[0 if name.endswith(DOWN) else 1] for name, tensor in state.items() if tensor.ndim > 1}
    if len(ranks) != 1:
        raise Refusal(f"{path}: the LoRA has layers of the ranks {sorted(ranks)}, but a restorer has one for all")
    return tuple(paths), ranks.pop()


@torch.no_grad()
def load_restorer(unet: nn.Module, path: Path, state: Mapping[str, Tensor]) -> None:
    """Overwrite the UNet's LoRA. Raises Refusal where a name or a shape differs; nothing is loaded then."""
    weights = lora_parameters(unet)
    problems = []
    if missing := sorted(weights.keys() - state.keys()):
        problems.append(f"{path}: the file lacks {_some(missing)}; give one of the same lora_modules")
    if unexpected := sorted(state.keys() - weights.keys()):
        problems.append(f"{path}: {_some(unexpected)} of the file has no place here; set lora_modules to the file's")
    for name in sorted(weights.keys() & state.keys()):
        have, need = tuple(state[name].shape), tuple(weights[name].shape)
        if have != need:
            problems.append(f"{path}: {name} has the shape {have} instead of {need}; {_cure(name, have, need)}")
            break  # the others differ for the same reason
    if problems:
        raise Refusal(*problems)
    scales = {f"{layer_path}.{UP}": float(layer.scaling[ADAPTER]) for layer_path, layer in _layers(unet)}
    for name, weight in weights.items():
        weight.copy_(state[name] / scales.get(name, 1.0))


def _layers(unet: nn.Module) -> Iterator[tuple[str, Any]]:
    """peft's, of which nothing is imported to read a file."""
    return ((path, layer) for path, layer in unet.named_modules() if hasattr(layer, "lora_A"))


def _of_layer(path: str, layer: Any) -> Iterator[tuple[str, nn.Parameter]]:
    for end, factors in ((DOWN, layer.lora_A), (UP, layer.lora_B)):
        yield f"{path}.{end}", cast(nn.Parameter, factors[ADAPTER].weight)


def _cure(name: str, have: Sequence[int], need: Sequence[int]) -> str:
    axis = 0 if name.endswith(DOWN) else 1
    if have[axis] != need[axis]:
        return f"set lora_rank to {have[axis]}"
    return "give a file for the same base model"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
