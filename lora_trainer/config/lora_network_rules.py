"""Which keys of a LoRA preset the chosen LoRA_type reads, and what its kind of layer cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lora_trainer.config.findings import Finding, error, inert, note
from lora_trainer.config.setting import keys_of

if TYPE_CHECKING:
    from lora_trainer.config.lora import LoraPreset

Findings = Iterator[Finding]

KOHYA = ("Standard", "Kohya LoCon", "LoRA-FA")
DYLORA = ("Kohya DyLoRA", "LyCORIS/DyLoRA")
FACTORED = ("LyCORIS/LoCon", "LyCORIS/LoHa", "LyCORIS/LoKr")
ROTATIONS = ("LyCORIS/Diag-OFT", "LyCORIS/BOFT")
LYCORIS = (
    *FACTORED, "LyCORIS/iA3", "LyCORIS/DyLoRA", "LyCORIS/GLoRA", *ROTATIONS, "LyCORIS/Native Fine-Tuning",
)  # fmt: skip
WITHOUT_RANK = ("LyCORIS/iA3", "LyCORIS/Native Fine-Tuning")
FULL_MATRIX = 100_000
READ_BY: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (  # keys, and the only types that read them
    (("conv_dim", "conv_alpha"), ("Kohya LoCon", *DYLORA, *FACTORED, "LyCORIS/GLoRA", *ROTATIONS)),
    (("block_dims",), (*KOHYA, *DYLORA, *FACTORED, "LyCORIS/GLoRA", *ROTATIONS)),
    (("network_alpha",), (*KOHYA, *DYLORA, *FACTORED, "LyCORIS/GLoRA")),
    (("network_dropout",), (*KOHYA, *FACTORED)),
    (("rank_dropout",), (*KOHYA, *FACTORED, "LyCORIS/Diag-OFT", "LyCORIS/Native Fine-Tuning")),
    (("rank_dropout_scale",), (*FACTORED, "LyCORIS/Native Fine-Tuning")),
    (("unit",), DYLORA),
    (("LyCORIS_preset", "train_norm"), LYCORIS),
    (("factor", "decompose_both"), ("LyCORIS/LoKr",)),
    (("use_cp", "use_tucker", "dora_wd"), FACTORED),
    (("use_scalar",), (*FACTORED, "LyCORIS/GLoRA")),
    (("constrain", "rescaled"), ROTATIONS),
    (("bypass_mode",), (*FACTORED, *ROTATIONS, "LyCORIS/GLoRA", "LyCORIS/iA3")),
    (("train_on_input",), ("LyCORIS/iA3",)),
    (
        ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"),
        (*KOHYA, *DYLORA, "LyCORIS/LoCon"),
    ),
)


def reads(lora_type: str, key: str) -> bool:
    """Whether a type's layers know the key; keys that every type knows are not in the table."""
    return all(lora_type in types for keys, types in READ_BY if key in keys)


def network(preset: LoraPreset) -> Findings:
    """What LoRA_type makes of the keys of other types."""
    for keys, types in READ_BY:
        if preset.LoRA_type not in types:
            for key in keys:
                value = getattr(preset, key)
                if value and not keys_of(type(preset))[key].is_neutral(value):
                    yield inert(f"LoRA_type {preset.LoRA_type} does not read it", key)
    if not preset.fused_lora and preset.LoRA_type not in KOHYA:
        yield inert(f"LoRA_type {preset.LoRA_type} has no fused form", "fused_lora")
    if preset.dim_from_weights and not preset.network_weights:
        yield error("needs network_weights, which is empty; name a LoRA file or turn this off", "dim_from_weights")
    if preset.LoRA_type in DYLORA:
        for key in ("network_dim", "conv_dim"):
            if getattr(preset, key) % preset.unit:
                text = f"{getattr(preset, key)} is not a multiple of unit, {preset.unit}, as {preset.LoRA_type} needs"
                yield error(text, key, "unit")
    yield from _full_matrix(preset)
    yield from _lycoris_options(preset)


def _full_matrix(preset: LoraPreset) -> Findings:
    for key in ("network_dim", "conv_dim"):
        if getattr(preset, key) < FULL_MATRIX:
            continue
        if preset.LoRA_type == "LyCORIS/LoKr":
            yield note("stands for a full matrix: LoKr does not factor the larger one", key)
        elif key == "network_dim" and preset.LoRA_type not in WITHOUT_RANK:
            text = f"{getattr(preset, key)} stands for a full matrix, which only LyCORIS/LoKr has"
            yield error(f"{text}; write a rank, such as 32", key, "LoRA_type")


def _lycoris_options(preset: LoraPreset) -> Findings:
    if preset.rank_dropout_scale and not preset.rank_dropout:
        yield inert("rank_dropout is 0", "rank_dropout_scale")
    if preset.network_dropout and preset.LoRA_type in ("LyCORIS/LoHa", "LyCORIS/LoKr") and not preset.bypass_mode:
        yield inert(f"{preset.LoRA_type} reads it in bypass_mode only", "network_dropout")
    if preset.network_dropout and preset.LoRA_type == "LyCORIS/LoCon" and preset.dora_wd:
        yield inert("dora_wd takes the place of what it drops", "network_dropout")
    if preset.dora_wd and preset.bypass_mode:
        text = "needs the weights added up, which bypass_mode does not; turn one of them off"
        yield error(text, "dora_wd", "bypass_mode")
    if preset.network_dim != 8 and preset.LoRA_type in WITHOUT_RANK:
        yield inert(f"LoRA_type {preset.LoRA_type} has no rank", "network_dim")
