"""A model that does not exist yet: a JSON file that says of which sizes it is, to begin with random weights.

Imports neither PyTorch nor diffusers, like `detect`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lora_trainer.errors import Refusal, did_you_mean
from lora_trainer.models.base_configs import KINDS, Kind
from lora_trainer.models.checkpoint import KIND_WORDS, Checkpoint, Prediction
from lora_trainer.models.fresh_keys import PARTS, problems_with_part, shown
from lora_trainer.models.fresh_sizes import VAE_FACTOR, Configs, fresh_configs, misfits

SUFFIX = ".json"
LARGEST_SEED = 2**32 - 1
EXAMPLE = '{"kind": "sdxl", "unet": {"block_out_channels": [64, 96, 160]}}'
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
_COMMON = ("about", "kind", "prediction", "zero_terminal_snr", "seed", "resolution")


@dataclass(frozen=True)
class FreshModel:
    """What is to be built. ``vae`` is the path of a trained VAE, where there is one; else it is random too."""

    path: Path
    kind: Kind
    prediction: Prediction
    zero_terminal_snr: bool
    seed: int
    configs: Configs
    vae: Path | None

    @property
    def checkpoint(self) -> Checkpoint:
        """What `detect` says of it."""
        evidence = f"kind and prediction in {self.path.name}"
        return Checkpoint(self.path, "description", self.kind, self.prediction, self.zero_terminal_snr, evidence)


def read_description(path: Path) -> FreshModel:
    """Read and check a description. Raises Refusal with everything that is wrong."""
    content = _content(path)
    kind = content.get("kind")
    if kind not in KINDS:
        found = f"kind: found {shown(kind)}" if "kind" in content else "there is no kind in it"
        raise Refusal(f"{path}: {found}; a description of a new model says {' or '.join(KINDS)}, for example {EXAMPLE}")
    problems = [*_common_problems(kind, content), *_part_problems(kind, content)]
    vae = content.get("vae")
    parts = {part: content[part] for part in PARTS[kind] if isinstance(content.get(part), dict)}
    trained_vae = _beside(path, vae) if isinstance(vae, str) else None
    if trained_vae is not None and not trained_vae.exists():
        problems.append(f"vae: {vae}: there is no such file or folder beside it or here; train the VAE first")
    if not problems:
        configs = fresh_configs(kind, parts, content.get("resolution"))
        problems += misfits(kind, parts, configs)
    if problems:
        raise Refusal(*(f"{path}: {problem}" for problem in problems))
    prediction: Prediction = content.get("prediction", "epsilon")
    zero_terminal_snr = content.get("zero_terminal_snr", False)
    configs["scheduler"] |= {"prediction_type": prediction}
    if zero_terminal_snr:
        configs["scheduler"] |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return FreshModel(path, kind, prediction, zero_terminal_snr, content.get("seed", 0), configs, trained_vae)


def trained_files(path: Path) -> tuple[Path, ...]:
    """What the description takes weights from, beside itself. Raises Refusal."""
    vae = read_description(path).vae
    return () if vae is None else (vae,)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Refusal(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise Refusal(f"{path}:{error.lineno}:{error.colno}: is not JSON ({error.msg})") from error
    if not isinstance(content, dict):
        raise Refusal(f"{path}: this is no description of a new model; write an object, for example {EXAMPLE}")
    return content


def _common_problems(kind: Kind, content: Mapping[str, Any]) -> Iterator[str]:
    known = (*_COMMON, *PARTS[kind])
    for key in content:
        if key not in known:
            lacks = f"{KIND_WORDS[kind]} has no such part; remove it" if key == "text_encoder_2" else ""
            yield f"{key}: {lacks or f'unknown key{did_you_mean(key, known)}'}"
    prediction, seed = content.get("prediction", "epsilon"), content.get("seed", 0)
    if prediction not in PREDICTIONS:
        yield f"prediction: found {shown(prediction)}; write {' or '.join(PREDICTIONS)}"
    if not isinstance(content.get("zero_terminal_snr", False), bool):
        yield f"zero_terminal_snr: found {shown(content['zero_terminal_snr'])}; write true or false"
    elif content.get("zero_terminal_snr") and prediction == "epsilon":
        yield "zero_terminal_snr: from noise alone no noise can be learnt; set prediction to v_prediction"
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= LARGEST_SEED:
        yield f"seed: found {shown(seed)}; write a whole number from 0 to {LARGEST_SEED}"
    resolution = content.get("resolution", VAE_FACTOR)
    if not isinstance(resolution, int) or isinstance(resolution, bool) or resolution < 1 or resolution % VAE_FACTOR:
        yield f"resolution: found {shown(resolution)}; write its pictures' side, a multiple of {VAE_FACTOR} pixels"


def _part_problems(kind: Kind, content: Mapping[str, Any]) -> Iterator[str]:
    for part, known in PARTS[kind].items():
        if part in content and not (part == "vae" and isinstance(content[part], str)):
            yield from problems_with_part(part, content[part], known)


def _beside(path: Path, named: str) -> Path:
    """Beside the description, or where the path leads from here."""
    beside = path.parent / named
    return beside if beside.exists() else Path(named)
