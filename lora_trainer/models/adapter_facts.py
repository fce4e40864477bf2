"""The metadata of LoRA files that were made from others: what is kept, and what is said anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from lora_trainer import __version__
from lora_trainer.models.adapter_file import FileLayer
from lora_trainer.models.base_configs import Kind

DYNAMIC = "Dynamic"  # what sd-scripts writes where layers differ
MERGED_FROM = "modelspec.merged_from"
HASHES = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
_VERSIONS: dict[Kind, tuple[str, str, str]] = {  # ss_base_model_version, ss_v2, modelspec.architecture
    "sd15": ("sd_v1", "False", "stable-diffusion-v1/lora"),
    "sd21": ("sd_v2", "True", "stable-diffusion-v2-512/lora"),
    "sdxl": ("sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora"),
}


def agreed(all_metadata: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The entries that all files have alike, without hashes."""
    first, *others = all_metadata
    return {
        key: value
        for key, value in first.items()
        if key not in HASHES and all(metadata.get(key) == value for metadata in others)
    }


def network_facts(layers: Mapping[str, FileLayer], old: Mapping[str, str] | None = None) -> dict[str, str]:
    """Rank and alpha as they are now: linear layers in ss_network_dim, convolutions in ss_network_args."""
    loras = [layer for layer in layers.values() if layer.kind == "lora"]
    convolutions = [layer for layer in loras if _is_wide(layer)]
    others = [layer for layer in loras if not _is_wide(layer)] or convolutions
    facts = {
        "ss_network_module": (old or {}).get("ss_network_module", "networks.lora"),
        "ss_network_dim": _common(layer.rank for layer in others),
        "ss_network_alpha": _common(layer.rank if layer.alpha is None else layer.alpha for layer in others),
    }
    if convolutions:
        alphas = (layer.rank if layer.alpha is None else layer.alpha for layer in convolutions)
        ranks = {"conv_dim": _common(layer.rank for layer in convolutions), "conv_alpha": _common(alphas)}
        facts["ss_network_args"] = json.dumps({**_arguments(old or {}), **ranks})
    return facts


def _is_wide(layer: FileLayer) -> bool:
    return any(side > 1 for side in layer.kernel)


def _arguments(metadata: Mapping[str, str]) -> dict[str, object]:
    try:
        told = json.loads(metadata.get("ss_network_args", "{}"))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _common(numbers: Iterable[float | None]) -> str:
    different = {float(number or 0) for number in numbers}
    return f"{different.pop():g}" if len(different) == 1 else DYNAMIC


def base_facts(kind: Kind, v_prediction: bool = False) -> dict[str, str]:
    """By what other programs know for which base models the file is."""
    version, v2, architecture = _VERSIONS[kind]
    if kind == "sd21" and v_prediction:
        version, architecture = "sd_v2_v", "stable-diffusion-v2-768-v/lora"
    return {
        "ss_base_model_version": version,
        "ss_v2": v2,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.prediction_type": "v" if v_prediction else "epsilon",
    }


def made_by(title: str, comment: str, old: Mapping[str, str]) -> dict[str, str]:
    """The new name, and what was done, behind what the comment said before."""
    before = old.get("ss_training_comment", "None")
    return {
        "ss_output_name": title,
        "modelspec.title": title,
        "modelspec.implementation_version": f"lora_trainer/{__version__}",
        "ss_training_comment": comment if before in ("", "None") else f"{before}; {comment}",
    }
