"""The keys of a super-resolution preset about the networks and where they start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Le

from lora_trainer.config.kinds import AnyCase, Component, Part, PathText, Positive, Switch, Text
from lora_trainer.config.setting import no_effect, setting

NO_NETWORK = Component("")


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The upscaler (generator) and, for a GAN, its discriminator."""

    scale: Annotated[Positive, Le(8)] = setting(4, "How many times larger the result is; 1 is a restoration.")
    network_g: Part = setting(
        NO_NETWORK,
        "The architecture by its name in spandrel, with its options: "
        '{"type": "span", "norm": false}; docs/super_resolution.md has the list.',
        required=True,
        example='{"type":"span"}',
    )
    network_d: Part = setting(
        NO_NETWORK,
        "The discriminator with its options: dunet, unetdiscriminatorsn, patchgandiscriminatorsn, "
        "multiscalepatchgandiscriminatorsn or vggstylediscriminator. Needed where the losses hold a ganloss.",
    )


@dataclass(frozen=True, kw_only=True)
class Pretrains:
    """The weights that the training starts from."""

    pretrain_network_g: PathText = setting(
        "", "A .safetensors or .pth file of an upscaler to start from; without it, from scratch."
    )
    param_key_g: Text = setting(
        "", "The table of a .pth file that holds the weights; without it, params_ema or params."
    )
    strict_load_g: Switch = setting(
        True,
        "Whether the file must fit exactly. false takes over what fits and lists it: for another scale.",
    )
    pretrain_network_d: PathText = setting("", "A file of the discriminator to start from.")
    param_key_d: Text = setting("", "The table of a .pth file that holds the discriminator's weights.")
    strict_load_d: Switch = setting(True, "Whether the discriminator's file must fit exactly.")
    resume_state: PathText = setting(
        "", "A state to go on from.", may_change=True,
        effect=no_effect("the same command goes on from its own last checkpoint"),
    )  # fmt: skip
    ignore_resume_networks: Text = setting(
        "", "Networks that resume_state skips.", may_change=True,
        effect=no_effect("the same command goes on from its own last checkpoint"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Number formats and speed."""

    use_amp: Switch = setting(
        False,
        "Half precision in the forward and backward pass: fp16, or bf16 with amp_bf16. mixed_precision says both.",
    )
    amp_bf16: Switch = setting(False, "bf16 in place of fp16; some architectures overflow in fp16 and get it anyway.")
    use_channels_last: Switch = setting(
        True, "Lay pictures out with the channels last, on a CPU and, in half precision, on a GPU: faster convolutions."
    )
    fast_matmul: Switch = setting(False, "Let float32 products be rounded to TF32 on the GPUs that have it.")
    use_compile: Switch = setting(False, "Compile the generator: minutes at the start, faster steps on a GPU.")
    compile_mode: Annotated[
        Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"], AnyCase()
    ] = setting("default", "How long torch.compile searches.")
    deterministic: Switch = setting(
        False, "Choose only operations that give the same bits each time; on a CPU they always do."
    )
    detect_anomaly: Switch = setting(False, "Say which operation made a NaN; much slower.", may_change=True)
