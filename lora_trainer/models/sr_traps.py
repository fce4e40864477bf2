"""Options and scales that make a network which trains badly or which other programs read back as another one.

Each rule sees one architecture's options with all defaults filled in. It sets right what has one meaning, with a note,
and refuses the rest with the reason and the cure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_trainer.models.sr_families import RGB, Family


@dataclass(frozen=True)
class Problem:
    """What is wrong in `network_g`; the path is below that key: ("type",) or ("norm",)."""

    path: tuple[str, ...]
    text: str


@dataclass
class Draft:
    """A network while its options are looked through. `given` are the options that the preset names."""

    family: Family
    network: str  # the class
    scale: int
    values: dict[str, Any]
    given: frozenset[str]
    multiple_of: int
    minimum_px: int
    fp16: bool
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, option: str, text: str) -> None:
        """Lay the blame on an option, or on the type where the preset does not name it."""
        self.problems.append(Problem((option if option in self.given else "type",), text))


def look_through(draft: Draft) -> None:
    """Check the scale, then apply the architecture's rules if the options have the right kinds so far."""
    if draft.scale not in draft.family.scales:
        scales = " or ".join(str(scale) for scale in draft.family.scales)
        reason = WRONG_SCALES.get((draft.family.architecture, draft.scale), "")
        draft.refuse("type", f"{draft.family.architecture} has no scale {draft.scale}{reason}; set scale to {scales}")
    elif not draft.problems:
        RULES.get(draft.family.network, _no_rule)(draft)


WRONG_SCALES: Mapping[tuple[str, int], str] = {
    ("ESRGAN", 3): ": it would train, but every other program would read the file as 2x",
    ("SwiftSRGAN", 3): ": it would give 2x pictures",
}


def _no_rule(draft: Draft) -> None:
    pass


def _esrgan(draft: Draft) -> None:
    """The small scales are the 4x network on pixel-unshuffled pictures, unless that is switched off."""
    unshuffled = draft.values.pop("use_pixel_unshuffle")
    if unshuffled and draft.scale in (1, 2):
        factor = 4 // draft.scale
        draft.values |= {"scale": 4, "in_nc": RGB * factor**2, "shuffle_factor": factor}
        draft.multiple_of = draft.minimum_px = 4  # spandrel's own demand, whatever the factor


def _nearest_conv(draft: Draft) -> None:
    """Doubles once or twice or thrice; the later architectures only know twice."""
    if draft.values["upsampler"] != "nearest+conv":
        return
    scales = (2, 4, 8) if draft.family.architecture == "SwinIR" else (4,)
    if draft.scale not in scales:
        may = " or ".join(str(scale) for scale in scales)
        draft.refuse(
            "upsampler",
            f'the upsampler "nearest+conv" of {draft.family.architecture} makes {may} times larger pictures, not '
            f'{draft.scale}; set "upsampler": "pixelshuffle"',
        )


def _grl(draft: Draft) -> None:
    _nearest_conv(draft)
    if draft.scale == 1 and draft.values["upsampler"] == "pixelshuffle":
        draft.refuse(
            "upsampler",
            'a 1x GRL with the upsampler "pixelshuffle" cannot be read back; set "upsampler": "pixelshuffledirect"',
        )


def _fdat(draft: Draft) -> None:
    if draft.values["upsampler_type"] == "transpose+conv" and draft.scale == 8:
        draft.refuse(
            "upsampler_type",
            'the upsampler "transpose+conv" of FDAT ends at 4x; set "upsampler_type": "pixelshuffle" for 8x',
        )


def _rcan(draft: Draft) -> None:
    """Its own default subtracts a mean in a range of 0 to 255 that no file records, and explodes on 0 to 1."""
    if "norm" in draft.given and draft.values["norm"]:
        draft.refuse(
            "norm", "RCAN with norm expects pictures from 0 to 255 and cannot be read back from its file; set it false"
        )
    if "rgb_range" in draft.given and draft.values["rgb_range"] != 1:
        draft.notes.append("RCAN: rgb_range has no effect without norm, and norm is off; pictures go from 0 to 1")
    draft.values |= {"norm": False, "rgb_range": 1}
    if draft.scale == 1 and not draft.values["unshuffle_mod"]:
        draft.refuse(
            "unshuffle_mod",
            'a 1x RCAN cannot be read back by other programs; set "unshuffle_mod": true, which can, and is faster',
        )
    if draft.values["n_feats"] < draft.values["reduction"]:
        draft.refuse("reduction", f"RCAN's reduction must not be above n_feats, {draft.values['n_feats']}")


def _realplksr(draft: Draft) -> None:
    draft.values["dysample"] = draft.values.pop("upsampler") == "dysample"
    draft.fp16 = bool(draft.values["layer_norm"])


def _realcugan(draft: Draft) -> None:
    """A class for each scale."""
    fast = draft.values.pop("fast")
    if fast and draft.scale != 2:
        draft.refuse("fast", f'RealCUGAN has a fast network at 2x only; at {draft.scale}x leave "fast" out')
    elif fast and draft.values.pop("pro"):
        draft.refuse("pro", "RealCUGAN's fast network has no pro variant; switch one of the two off")
    elif fast:
        draft.network, draft.multiple_of, draft.minimum_px = "UpCunet2x_fast", 4, 40
    else:
        draft.network = f"UpCunet{draft.scale}x"


def _dctlsa(draft: Draft) -> None:
    if draft.values["nf"] % 5:
        draft.refuse("nf", "DCTLSA shares nf among 5 heads; make it a multiple of 5")


def _scunet(draft: Draft) -> None:
    if draft.values["dim"] % 64:
        draft.refuse("dim", "SCUNet halves dim and shares it among heads of 32; make dim a multiple of 64")


RULES: Mapping[str, Callable[[Draft], None]] = {
    "ATD": _nearest_conv,
    "DCTLSA": _dctlsa,
    "ESRGAN": _esrgan,
    "FDAT": _fdat,
    "GRL": _grl,
    "RCAN": _rcan,
    "RealPLKSR": _realplksr,
    "Swin2SR": _nearest_conv,
    "SCUNet": _scunet,
    "SwinIR": _nearest_conv,
    "UpCunet2x": _realcugan,
}
