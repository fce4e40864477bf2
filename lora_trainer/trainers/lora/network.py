"""From a preset to the layers that are trained: their kind, place, rank, alpha and learning rate."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.lora_network_rules import reads
from lora_trainer.engine.optimizers import Group
from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_file import AdapterFile, in_kohya_names, read_adapter_file
from lora_trainer.models.adapters.layer import Dropouts, LayerPlan
from lora_trainer.models.adapters.network import add_adapter, fuse_layers, load_adapter
from lora_trainer.models.adapters.targets import Target, lora_targets
from lora_trainer.models.base_model import BaseModel
from lora_trainer.models.kohya_keys import Part, by_module_path, kohya_names
from lora_trainer.models.unet_blocks import Side, block_count, block_numbers, block_of, rate_factors
from lora_trainer.trainers.lora.chosen_layers import chosen_layers

log = logging.getLogger(__name__)

Names = Mapping[Part, Mapping[str, str]]  # the layers' names in the file, by part and path
FULL_MATRIX = 100_000  # the rank by which shipped presets say that LoKr is not to factor its large matrix

# LoRA_type -> the algebra, and lycoris' options by the preset's key
KINDS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "Standard": ("lora", {}),
    "Kohya LoCon": ("lora", {}),
    "LoRA-FA": ("lora", {}),
    "Kohya DyLoRA": ("dylora", {"unit": "block_size"}),
    "LyCORIS/LoCon": ("locon", {"use_scalar": "use_scalar", "dora_wd": "weight_decompose"}),
    "LyCORIS/LoHa": ("loha", {"use_scalar": "use_scalar", "dora_wd": "weight_decompose"}),
    "LyCORIS/LoKr": (
        "lokr",
        {
            "use_scalar": "use_scalar",
            "dora_wd": "weight_decompose",
            "factor": "factor",
            "decompose_both": "decompose_both",
        },
    ),
    "LyCORIS/iA3": ("ia3", {"train_on_input": "train_on_input"}),
    "LyCORIS/DyLoRA": ("dylora", {"unit": "block_size"}),
    "LyCORIS/GLoRA": ("glora", {"use_scalar": "use_scalar"}),
    "LyCORIS/Diag-OFT": ("diag-oft", {"constrain": "constraint", "rescaled": "rescaled"}),
    "LyCORIS/BOFT": ("boft", {"constrain": "constraint", "rescaled": "rescaled"}),
    "LyCORIS/Native Fine-Tuning": ("full", {}),
}
SDXL_WITHOUT = re.compile(r"conv_in|conv_out|(time|add)_embedding\..*")  # sd-scripts has other names for them
BLOCK_ARGUMENTS = (
    "down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold", "block_dims", "block_alphas",
    "conv_block_dims", "conv_block_alphas",
)  # fmt: skip
WITH_CONVOLUTIONS = ("Kohya LoCon", "Kohya DyLoRA")  # kohya's types that read conv_dim
ENDING = re.compile(r"\.(?:lora_A|lora_B|adapter)\.")  # what follows a layer's path in the name of a weight
UP = re.compile(r"\.(?:lora_B|lora_up|up_list)\.")


@dataclass(frozen=True)
class Sizes:
    """Ranks and alphas, of which a block may have its own; a rank of 0 leaves a layer out."""

    rank: int
    alpha: float
    conv_rank: int
    conv_alpha: float

    def of(self, target: Target) -> tuple[int, float]:
        rank, alpha = (self.conv_rank, self.conv_alpha) if target.is_wide else (self.rank, self.alpha)
        return rank, alpha or float(rank)


@dataclass(frozen=True)
class LoraNetwork:
    """What a preset says about the layers of any part of a base model. Making one raises Refusal for what is wrong."""

    preset: LoraPreset
    base: BaseModel
    resumed_weights: Path | None = None  # they come before network_weights

    @property
    def first_weights(self) -> tuple[str, Path] | None:
        """The file that the layers begin with, and the key that names it."""
        if self.resumed_weights is not None:
            return "resume", self.resumed_weights
        return ("network_weights", Path(self.preset.network_weights)) if self.preset.network_weights else None

    @property
    def algo(self) -> str:
        return KINDS[self.preset.LoRA_type][0]

    @property
    def dropouts(self) -> Dropouts:
        preset = self.preset
        return Dropouts(preset.network_dropout, preset.rank_dropout, preset.module_dropout, preset.rank_dropout_scale)

    @property
    def freezes_down(self) -> bool:
        """LoRA-FA trains up alone (Zhang et al. 2023)."""
        return self.preset.LoRA_type == "LoRA-FA"

    @property
    def leaves_weights_out(self) -> bool:
        """Whether a pass may not reach all weights."""
        return self.preset.module_dropout > 0 or self.algo == "dylora"

    @property
    def draws(self) -> bool:
        """Whether the layers draw random numbers in a pass."""
        return self.dropouts.any or self.algo == "dylora"

    def plans(self, part: Part, model: nn.Module) -> dict[str, LayerPlan]:
        """The layers of a part, by path, in the model's own order; without those whose rank or rate is 0."""
        targets = self._targets(part, model)
        names = kohya_names(self.base.kind, part, targets, self.base.unet.config)
        sizes, factors = self._block_sizes(part), self.rate_factors(part)
        blocks = block_of(self.base.kind, list(targets), self.base.unet.config) if part == "unet" else {}
        plans = {}
        for path, target in targets.items():
            block = blocks.get(path, 0)
            rank, alpha = sizes[block].of(target)
            if rank and factors[block]:
                plans[path] = self._plan(names[path], target, rank, alpha)
        if not plans:
            raise Refusal(f"nothing of the {part} would be trained: every layer's rank or rate is 0; raise one of them")
        return plans

    def rate_factors(self, part: Part) -> list[float]:
        """What the part's rate is multiplied with in each block."""
        preset = self.preset
        sides: dict[Side, str] = {
            "down": preset.down_lr_weight,
            "mid": preset.mid_lr_weight,
            "up": preset.up_lr_weight,
        }
        found = rate_factors(self.base.kind, sides, preset.block_lr_zero_threshold) if part == "unet" else None
        return found or [1.0] * block_count(self.base.kind)

    def _targets(self, part: Part, model: nn.Module) -> dict[str, Target]:
        preset = self.preset
        if not preset.LoRA_type.startswith("LyCORIS/"):
            by_type = preset.LoRA_type in WITH_CONVOLUTIONS and preset.conv_dim > 0
            return lora_targets(model, convolutions=by_type or bool(preset.conv_block_dims))
        chosen = chosen_layers(preset.LyCORIS_preset)
        found = chosen.targets(model, is_unet=part == "unet", norms=preset.train_norm)
        if self.base.kind == "sdxl" and part == "unet":
            return {path: target for path, target in found.items() if not SDXL_WITHOUT.fullmatch(path)}
        return found

    def _block_sizes(self, part: Part) -> list[Sizes]:
        """Those of each block; the text encoders have one, and it comes first."""
        preset, kind = self.preset, self.base.kind
        plain = Sizes(
            preset.network_dim, preset.effective_network_alpha, preset.conv_dim, preset.conv_alpha or preset.conv_dim
        )
        if part != "unet":
            return [plain] * block_count(kind)

        def own(key: str, *, whole: bool) -> list[float] | None:
            return block_numbers(key, getattr(preset, key), kind, whole=whole)

        ranks, alphas = own("block_dims", whole=True), own("block_alphas", whole=False)
        conv_ranks, conv_alphas = own("conv_block_dims", whole=True), own("conv_block_alphas", whole=False)
        return [
            Sizes(
                int(ranks[block]) if ranks else plain.rank,
                alphas[block] if alphas else plain.alpha,
                int(conv_ranks[block]) if conv_ranks else plain.conv_rank,
                conv_alphas[block] if conv_alphas else plain.conv_alpha,
            )
            for block in range(block_count(kind))
        ]

    def _plan(self, name: str, target: Target, rank: int, alpha: float) -> LayerPlan:
        if target.is_norm:
            return LayerPlan(name, "norm", 0, 0.0)
        options = {theirs: getattr(self.preset, ours) for ours, theirs in KINDS[self.preset.LoRA_type][1].items()}
        options["use_tucker"] = self.preset.use_tucker or self.preset.use_cp
        options["bypass_mode"] = (self.preset.bypass_mode and reads(self.preset.LoRA_type, "bypass_mode")) or None
        own: dict[str, Any] = dict(target.options)
        algo = _algo(str(own.pop("algo", self.algo)))
        rank, alpha = int(own.pop("dim", rank)), float(own.pop("alpha", alpha))
        if algo == "lokr" and rank >= FULL_MATRIX:
            rank, alpha, options["full_matrix"] = 1, 1.0, True
        if algo == "lora":
            return LayerPlan(name, algo, rank, alpha)
        return LayerPlan(name, algo, rank, alpha, {**options, **own})


def _algo(name: str) -> str:
    """lycoris' own names for one algebra."""
    return {"lora": "locon", "kron": "lokr", "oft": "diag-oft"}.get(name, name) if name != "lora" else name


def build_network(network: LoraNetwork, models: Mapping[Part, nn.Module], seed: int) -> Names:
    """Put the layers into the models that are to be trained. Gives their names in the file, by part and path."""
    preset = network.preset
    first = network.first_weights
    weights = in_kohya_names(read_adapter_file(first[1]), network.base.kind) if first is not None else None
    names: dict[Part, dict[str, str]] = {}
    for part, model in models.items():
        plans = network.plans(part, model)
        if weights is not None and preset.dim_from_weights:
            sizes = {name: layer.size for name, layer in weights.layers.items()}
            plans = adopt_sizes(plans, {name: size for name, size in sizes.items() if size is not None})
        refused = add_adapter(model, plans, network.dropouts, seed)
        if preset.fused_lora:
            fuse_layers(model)
        if len(refused) == len(plans):
            reason = next(iter(refused.values()), "network_weights has none of its layers")
            raise Refusal(f"LoRA_type {preset.LoRA_type}: nothing of the {part} can be trained ({reason})")
        if refused:
            path, reason = next(iter(refused.items()))
            log.info("%d layers of the %s are left out, as %s (%s)", len(refused), part, path, reason)
        names[part] = {path: plan.name for path, plan in plans.items() if path not in refused}
        if network.freezes_down:
            for name, weight in model.named_parameters():
                if ".lora_A." in name:
                    weight.requires_grad_(False)
    if weights is not None and first is not None:
        _start_from(weights, names, models, first)
    return names


def _start_from(weights: AdapterFile, names: Names, models: Mapping[Part, nn.Module], source: tuple[str, Path]) -> None:
    """What the file has of the layers that are trained. The source is a key and the file that it names."""
    key, path = source
    known = {name for of_part in names.values() for name in of_part.values()}
    taken = {name: layer.tensors for name, layer in weights.layers.items() if name in known}
    if not taken:
        raise Refusal(
            f"{key}: {path} has none of the layers that are trained here (it has {_first(weights.layers)}, "
            f"here there is {_first(known)}); give a file of the same family of base models"
        )
    for part, tensors in by_module_path(names, taken).items():
        try:
            load_adapter(models[part], tensors)
        except Refusal as refusal:
            raise Refusal(*(f"{key}: {path}: {problem}" for problem in refusal.problems)) from refusal
    left, new = len(weights.layers) - len(taken), len(known) - len(taken)
    log.info(
        "%s: %d layers taken over%s%s", path, len(taken), f", {left} are not trained here" if left else "",
        f"; {new} layers begin anew" if new else "",
    )  # fmt: skip


def _first(names: Iterable[str]) -> str:
    return min(names, default="nothing")


def network_arguments(preset: LoraPreset) -> dict[str, str]:
    """What sd-scripts' network_args would be: the options of the layers' kind that ask for something."""
    algo, options = KINDS[preset.LoRA_type]
    found: dict[str, object] = {}
    if preset.LoRA_type.startswith("LyCORIS/"):
        found = {"algo": algo, "preset": preset.LyCORIS_preset, "conv_dim": preset.conv_dim}
        found["conv_alpha"] = preset.conv_alpha
        found |= {"train_norm": preset.train_norm, "use_tucker": preset.use_tucker or preset.use_cp}
        found |= {theirs: getattr(preset, ours) for ours, theirs in options.items()}
    elif preset.LoRA_type in WITH_CONVOLUTIONS and preset.conv_dim:
        found = {"conv_dim": preset.conv_dim, "conv_alpha": preset.conv_alpha}
        found |= {"unit": preset.unit} if algo == "dylora" else {}
    found |= {key: getattr(preset, key) for key in BLOCK_ARGUMENTS if getattr(preset, key)}
    found |= {key: getattr(preset, key) for key in ("rank_dropout", "module_dropout") if getattr(preset, key)}
    return {key: str(value) for key, value in found.items() if value is not False}


def adopt_sizes(plans: Mapping[str, LayerPlan], found: Mapping[str, tuple[int, float]]) -> dict[str, LayerPlan]:
    """dim_from_weights: the ranks and alphas of a file, by the layer's name; what the file lacks is not trained."""
    return {
        path: replace(plan, rank=found[plan.name][0], alpha=found[plan.name][1])
        for path, plan in plans.items()
        if plan.name in found
    }


@dataclass(frozen=True)
class Rates:
    """The learning rate of a part, and how many times higher that of its up weights is (LoRA+, Hayou et al. 2024)."""

    part: str
    rate: float
    up_ratio: float = 0.0
    factors: Mapping[str, float] = field(default_factory=dict)  # by the layer's path, where its block has its own
    until: int | None = None

    def groups(self, weights: Mapping[str, nn.Parameter], prefix: str) -> list[Group]:
        """Weights in groups of one rate each. The prefix stands before the layers' paths in the weights' names."""
        groups: dict[tuple[float, bool], dict[str, nn.Parameter]] = {}
        for name, weight in weights.items():
            factor = self.factors.get(ENDING.split(name.removeprefix(prefix))[0], 1.0)
            groups.setdefault((factor, self.up_ratio > 0 and bool(UP.search(name))), {})[name] = weight
        return [self._group(factor, is_up, members) for (factor, is_up), members in groups.items()]

    def _group(self, factor: float, is_up: bool, members: dict[str, nn.Parameter]) -> Group:
        words = [self.part, *([f"x{factor:g}"] if factor != 1 else []), *(["up"] if is_up else [])]
        return Group(" ".join(words), self.rate * factor * (self.up_ratio if is_up else 1.0), members, self.until)
