"""Files of upscalers: written with the constructor's values beside the weights, and read back as others will."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.atomic import write_bytes
from lora_trainer.draws import torch_generator
from lora_trainer.errors import Refusal
from lora_trainer.models.file_kinds import is_torch_file
from lora_trainer.models.safetensors_bytes import safetensors_bytes
from lora_trainer.models.safetensors_header import read_header
from lora_trainer.models.sr_networks import NETWORKS, SrNetwork, plain_options, rebuilt
from lora_trainer.models.sr_pretrain import read_weights

TABLE = "params_ema"  # in a .pth file; where readers look first
HYPERPARAMETERS = "hyperparameters"
FOLD = "update_params"  # of SPAN's layers: it folds three convolutions into the one that eval mode uses
PROBE_PX = 32  # the picture on which two networks are compared
TOLERANCE = 1e-4  # of the largest value of the two outputs; another order of sums gives 1e-6


def save_network(
    path: Path, network: SrNetwork, state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Write a generator's weights, .safetensors or .pth by the path's suffix; the same weights give the same bytes.

    `state` is a state dict of the network's module, which may be an average's. The weights are cast, buffers are not.
    Raises Refusal for another suffix.
    """
    tensors = _exported(network, state, dtype)
    metadata = file_metadata(network)
    if path.suffix == ".safetensors":
        write_bytes(path, safetensors_bytes(tensors, metadata))
    elif path.suffix == ".pth":
        buffer = io.BytesIO()
        torch.save({TABLE: tensors, **metadata}, buffer)
        write_bytes(path, buffer.getvalue())
    else:
        raise Refusal(f"{path}: a network is saved as .safetensors or .pth; change the ending")


def file_metadata(network: SrNetwork) -> dict[str, str]:
    """What is written beside the weights: texts, the constructor's values as one JSON object."""
    return {
        "format": "pt",
        "type": network.type,
        "architecture": network.architecture,
        "network": network.network,
        "scale": str(network.scale),
        HYPERPARAMETERS: json.dumps(dict(network.options), sort_keys=True),
    }


def check_readback(path: Path, network: SrNetwork) -> list[str]:
    """What differs when spandrel, and so chaiNNer and ComfyUI, reads the file of a network that was just saved.

    A sentence for each difference; none when architecture, scale, weights and output are the network's own.
    """
    import spandrel

    try:
        descriptor = spandrel.ModelLoader(torch.device("cpu")).load_from_file(path)
    except Exception as error:  # whatever its readers stumble over
        return [f"spandrel cannot read this file ({_brief(error)}); other programs will not open it"]
    weights = read_weights(path)
    return _other_weights(network, weights) or _compare(network, weights, descriptor)


def foresee_readback(network: SrNetwork) -> list[str]:
    """What `check_readback` would say of the network as it is now, before days are spent on its training."""
    import spandrel

    weights = _exported(network, network.module.state_dict(), torch.float32)
    try:
        descriptor = spandrel.MAIN_REGISTRY.load(dict(weights))
    except Exception as error:  # whatever its readers stumble over
        return [f"spandrel cannot read files of this network ({_brief(error)}); other programs will not open them"]
    return _compare(network, weights, descriptor)


def network_from_file(path: Path) -> Any:
    """Any upscaler that spandrel knows, as its ImageModelDescriptor: on the CPU, in eval mode, float32.

    Our own files come back exactly, by the constructor's values that they carry, where spandrel has to guess. Called
    with a picture (1, 3, h, w) from 0 to 1, the descriptor pads it to what the network needs. Raises Refusal.
    """
    import spandrel

    weights = read_weights(path)
    try:
        guessed = spandrel.MAIN_REGISTRY.load(dict(weights))
    except Exception as error:  # whatever its readers stumble over in a person's file
        raise Refusal(
            f"{path}: no upscaler that spandrel knows ({_brief(error)}); give a file of one of its architectures"
        ) from error
    if not isinstance(guessed, spandrel.ImageModelDescriptor):
        raise Refusal(f"{path}: this network fills in masked parts of pictures; give an upscaler")
    metadata = read_metadata(path)
    if metadata.get("type") not in NETWORKS or HYPERPARAMETERS not in metadata:
        return guessed.eval()
    try:
        module = rebuilt(metadata["type"], metadata["network"], json.loads(metadata[HYPERPARAMETERS]))
        own = {name: weights[name] for name in module.state_dict()}
        return _around(guessed, module, own, int(metadata["scale"])).eval()
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        raise Refusal(
            f"{path}: the notes in this file do not fit its weights ({_brief(error)}); save it again or use another"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that stand beside the weights; none in a file of other programs."""
    if not is_torch_file(path):
        return dict(read_header(path).metadata)
    content = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value for name, value in content.items() if isinstance(value, str)}


def _exported(network: SrNetwork, state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """A file's tensors: on the CPU, contiguous, cast, with the copies that eval mode uses brought up to date."""
    tensors = {name: state[name].detach().cpu() for name in network.module.state_dict()}  # always in this order
    folding = any(hasattr(part, FOLD) for part in network.module.modules())
    if folding or network.family.described_by:
        twin = network.twin()
        twin.load_state_dict(tensors)
        for part in twin.modules():
            if hasattr(part, FOLD):
                getattr(part, FOLD)()
        tensors = {name: tensor.detach() for name, tensor in twin.state_dict().items()}
        tensors |= {name: twin.get_buffer(name).detach() for name in network.family.described_by}
    weights = dict(network.module.named_parameters())
    return {
        name: tensor.to(dtype if name in weights else tensor.dtype).clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _compare(network: SrNetwork, weights: Mapping[str, Tensor], descriptor: Any) -> list[str]:
    """How spandrel's network differs from ours with the same weights."""
    found = f"{descriptor.architecture.id} {descriptor.scale}x"
    expected = f"{network.architecture} {network.scale}x"
    if found != expected:
        return [f"spandrel reads this as {found} in place of {expected}, and so will other programs"]
    return _other_output(network, weights, descriptor.model)


def _other_weights(network: SrNetwork, weights: Mapping[str, Tensor]) -> list[str]:
    """Whether the file holds the network's trained weights, rounded to the file's precision."""
    for name, weight in network.trained_weights().items():
        ours = weight.detach().cpu()
        if not bool(ours.isfinite().all()):
            return [f"{name} holds NaN or infinite numbers; the training has failed before this file"]
        stored = weights.get(name)
        if stored is None or not torch.equal(stored, ours.to(stored.dtype)):
            return [f"{name} in this file is not the network's; save it again"]
    return []


def _other_output(network: SrNetwork, weights: Mapping[str, Tensor], read: nn.Module) -> list[str]:
    twin = network.twin()
    twin.load_state_dict({name: weights[name] for name in twin.state_dict()})
    picture = _probe(network)
    with torch.no_grad():
        ours, theirs = _picture(twin.eval()(picture)), _picture(read.float().eval()(picture))
    if ours.shape != theirs.shape:
        return [f"spandrel makes pictures of {tuple(theirs.shape[-2:])} pixels with this, not {tuple(ours.shape[-2:])}"]
    if not bool(ours.isfinite().all()):
        return ["the network's output is NaN or infinite"]
    largest = float(torch.maximum(ours.abs().max(), theirs.abs().max()))
    apart = float((ours - theirs).abs().max())
    if apart <= TOLERANCE * max(largest, 1e-8):
        return []
    return [
        f"spandrel, and so other programs, makes another picture with this (up to {apart:.2g} apart), because it takes "
        f"it to have {_guessed(network, read)}; the tools of lora_trainer read it right"
    ]


def _guessed(network: SrNetwork, read: nn.Module) -> str:
    """The options that differ, but for those that have no effect on the output."""
    theirs = plain_options(read)
    wrong = [
        f"{name} {theirs.get(name)}, not {value}"
        for name, value in network.options.items()
        if theirs.get(name) != value and not name.endswith(("drop_rate", "drop_path_rate", "img_size"))
    ]
    return ", ".join(wrong) or "other options, which the file cannot record"


def _probe(network: SrNetwork) -> Tensor:
    """A fixed picture (1, 3, h, w) of smooth colours and noise, as small as the network takes it."""
    multiple = network.size_multiple
    side = -(-max(PROBE_PX, network.min_size) // multiple) * multiple
    ramp = torch.linspace(0, 1, side)
    smooth = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), ramp.flip(0).expand(side, side)])
    noise = torch.rand(3, side, side, generator=torch_generator("readback probe"))
    return (0.5 * smooth + 0.5 * noise)[None]


def _picture(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _around(guessed: Any, module: nn.Module, weights: Mapping[str, Tensor], scale: int) -> Any:
    """spandrel's descriptor around a module that was built by the file's own values."""
    import spandrel

    return spandrel.ImageModelDescriptor(
        module,
        dict(weights),
        architecture=guessed.architecture,
        purpose="Restoration" if scale == 1 else "SR",
        tags=guessed.tags,
        supports_half=guessed.supports_half,
        supports_bfloat16=guessed.supports_bfloat16,
        scale=scale,
        input_channels=guessed.input_channels,
        output_channels=guessed.output_channels,
        size_requirements=guessed.size_requirements,
        tiling=guessed.tiling,
    )


def _brief(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:200]
