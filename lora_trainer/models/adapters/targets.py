"""Which layers of a model get a trained layer beside them, by the rules of kohya's LoRA and of LyCORIS' presets.

A path is a module's dotted name in the model.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lora_trainer.errors import Refusal, did_you_mean

TRANSFORMERS = ("Transformer2DModel",)
CONVOLUTION_BLOCKS = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
TEXT_LAYERS = ("CLIPAttention", "CLIPMLP")
# The names of LDM's code, which some presets use, and those of diffusers' and transformers' classes
SAME_CLASS = {"CrossAttention": "Attention", "SelfAttention": "Attention", "CLIPSdpaAttention": "CLIPAttention"}


@dataclass(frozen=True)
class Target:
    """A layer to be covered. `options` overrides what holds for the others: algo, dim, alpha and lycoris' own."""

    is_wide: bool  # a convolution with a kernel above 1 x 1
    is_norm: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def lora_targets(model: nn.Module, *, convolutions: bool = False) -> dict[str, Target]:
    """What kohya's LoRA covers, in the model's own order.

    Every Linear and 1 x 1 convolution in the transformers of a UNet and in the attentions and MLPs of CLIP; with
    `convolutions` (LoCon) also whatever is linear or a convolution in residual blocks and resampling layers.
    """
    classes = (*TRANSFORMERS, *TEXT_LAYERS, *(CONVOLUTION_BLOCKS if convolutions else ()))
    return {path: target for path, target in _inside(model, classes) if convolutions or not target.is_wide}


@dataclass(frozen=True)
class LycorisPreset:
    """Which layers LyCORIS reaches: one of its own presets, or a person's TOML file."""

    unet_classes: tuple[str, ...]
    unet_names: tuple[str, ...]
    text_classes: tuple[str, ...]
    text_names: tuple[str, ...]
    convolutions: bool = True
    by_class: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    by_name: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    wildcards: bool = False

    def targets(self, model: nn.Module, *, is_unet: bool, norms: bool) -> dict[str, Target]:
        """The layers of a UNet or a text encoder, in the model's own order."""
        classes = self.unet_classes if is_unet else self.text_classes
        names = self.unet_names if is_unet else self.text_names
        found: dict[str, Target] = {}
        for path, target in _inside(model, classes, norms=norms, options=self.by_class):
            found[path] = target
        for path, layer in model.named_modules():
            named = _target(layer, norms) if path not in found and self._named(path, names) else None
            if named is not None:
                found[path] = Target(named.is_wide, named.is_norm, self._options(path))
        order = [path for path, _ in model.named_modules() if path in found and not self._named(path, self.excluded)]
        return {path: found[path] for path in order if self.convolutions or not found[path].is_wide}

    def _options(self, path: str) -> Mapping[str, Any]:
        return next((options for name, options in self.by_name.items() if self._matches(name, path)), {})

    def _named(self, path: str, names: Sequence[str]) -> bool:
        return any(self._matches(name, path) for name in names)

    def _matches(self, name: str, path: str) -> bool:
        """A whole path, its end after a point, or a pattern for the whole of it."""
        if path == name or path.endswith(f".{name}"):
            return True
        return fnmatch.fnmatchcase(path, name) if self.wildcards else bool(re.fullmatch(name, path))


def lycoris_preset(name: str, content: Mapping[str, Any] | None = None) -> LycorisPreset:
    """A preset of LyCORIS by its name, or what stands in the file of that name. Raises Refusal."""
    from lycoris.config import PRESET

    if content is None and name not in PRESET:
        guess = did_you_mean(name, PRESET)
        raise Refusal(
            f'LyCORIS_preset: there is no preset "{name}"; there is {", ".join(PRESET)}, and any .toml file{guess}'
        )
    return _preset(name, PRESET[name] if content is None else content, PRESET["full"])


KEYS = {
    "enable_conv", "unet_target_module", "unet_target_name", "text_encoder_target_module", "text_encoder_target_name",
    "module_algo_map", "name_algo_map", "exclude_name", "use_fnmatch",
}  # fmt: skip


def _preset(name: str, content: Mapping[str, Any], usual: Mapping[str, Any]) -> LycorisPreset:
    """What the content does not say is as in the usual one."""
    if unknown := sorted(content.keys() - KEYS - {"lycoris_preset"}):
        raise Refusal(f"LyCORIS_preset: {name}: unknown key {unknown[0]}{did_you_mean(unknown[0], KEYS)}")
    value = {**usual, **content}
    return LycorisPreset(
        unet_classes=_classes(value["unet_target_module"]),
        unet_names=tuple(value["unet_target_name"]),
        text_classes=_classes(value["text_encoder_target_module"]),
        text_names=tuple(value["text_encoder_target_name"]),
        convolutions=bool(value["enable_conv"]),
        by_class={SAME_CLASS.get(key, key): each for key, each in value.get("module_algo_map", {}).items()},
        by_name=value.get("name_algo_map", {}),
        excluded=tuple(value.get("exclude_name", ())),
        wildcards=bool(value.get("use_fnmatch", False)),
    )


def _classes(names: Sequence[str]) -> tuple[str, ...]:
    """Without the classes of newer models whose names ours have too: TimestepEmbedding is meant for Anima."""
    return tuple(dict.fromkeys(SAME_CLASS.get(name, name) for name in names if name != "TimestepEmbedding"))


def _inside(
    model: nn.Module,
    classes: Sequence[str],
    *,
    norms: bool = False,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[tuple[str, Target]]:
    """The layers inside modules of these classes, each once; the innermost class with options decides about them."""
    given = options or {}
    seen: dict[str, Target] = {}
    for outer_path, outer in model.named_modules():
        if type(outer).__name__ not in classes:
            continue
        for path, layer in outer.named_modules(prefix=outer_path):
            if target := _target(layer, norms):
                seen.setdefault(path, target)
    for outer_path, outer in model.named_modules():
        if type(outer).__name__ in given:
            for path, _ in outer.named_modules(prefix=outer_path):
                if path in seen:
                    seen[path] = Target(seen[path].is_wide, seen[path].is_norm, given[type(outer).__name__])
    yield from seen.items()


def _target(layer: nn.Module, norms: bool) -> Target | None:
    if isinstance(layer, nn.Linear):
        return Target(is_wide=False)
    if isinstance(layer, nn.Conv2d):
        return Target(is_wide=layer.kernel_size != (1, 1))
    return Target(is_wide=False, is_norm=True) if norms and isinstance(layer, (nn.GroupNorm, nn.LayerNorm)) else None
