"""The upscalers by the names that people write in `network_g`, each a class of spandrel with its published sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RGB = 3  # channels; the trainer works with colour pictures
SCALES = (1, 2, 3, 4, 8)

WINDOWED = ("pixelshuffle", "pixelshuffledirect", "nearest+conv")
CONVOLUTIONS = ("1conv", "3conv")


@dataclass(frozen=True)
class Family:
    """One architecture of spandrel and what must be known of it beside its constructor.

    `architecture` is spandrel's id and package, `network` the class in it, `scale_option` the constructor's word for
    the scale ("" where there is none). `multiple_of` and `minimum_px` are what the sides of a low-resolution picture
    must keep to when the bare module is called. `fixed` are options that spandrel gives these values when it reads a
    file, whatever they were, so no others are trained. `unused` finds the parameters that no gradient ever reaches.
    """

    architecture: str
    network: str
    scale_option: str
    channels: tuple[str, ...]
    scales: tuple[int, ...] = SCALES
    multiple_of: int = 1
    minimum_px: int = 1
    fp16: bool = True
    one_at_a_time: bool = False  # in eval mode, the network takes batches of one picture
    hidden: tuple[str, ...] = ()  # options of the constructor that the rules set
    fixed: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    other_words: Mapping[str, str] = field(default_factory=dict)  # traiNNer-redux's words for some of the choices
    extra: Mapping[str, Any] = field(default_factory=dict)  # options with their defaults that are not the constructor's
    unused: str = ""
    returns_more: bool = False  # the module answers with a tuple whose first part is the picture
    described_by: tuple[str, ...] = ()  # buffers to add to a file, from which spandrel reads sizes that it else guesses


_PLAIN = {"qk_scale": None, "img_range": 1.0}
_SWIN_FIXED = {"patch_size": 1, "ape": False, "img_range": 1.0}

_DAT = Family(
    "DAT", "DAT", "upscale", ("in_chans",), minimum_px=16, fp16=False, fixed=_PLAIN,
    choices={"upsampler": ("pixelshuffle", "pixelshuffledirect"), "resi_connection": CONVOLUTIONS},
)  # fmt: skip
_HAT = Family(
    "HAT", "HAT", "upscale", ("in_chans",), minimum_px=16, fp16=False,
    fixed={**_SWIN_FIXED, "qk_scale": None, "conv_scale": 0.01},
    choices={"upsampler": ("pixelshuffle",), "resi_connection": ("1conv", "identity")},
)  # fmt: skip
_SWINIR = Family(
    "SwinIR", "SwinIR", "upscale", ("in_chans",), minimum_px=16, fp16=False,
    fixed={**_SWIN_FIXED, "qk_scale": None, "start_unshuffle": 1},
    choices={"upsampler": WINDOWED, "resi_connection": CONVOLUTIONS},
)  # fmt: skip
_SWIN2SR = Family(
    "Swin2SR", "Swin2SR", "upscale", ("in_chans",), minimum_px=16, fp16=False, fixed=_SWIN_FIXED,
    choices={"upsampler": WINDOWED, "resi_connection": CONVOLUTIONS},
)  # fmt: skip
_ATD = Family(
    "ATD", "ATD", "upscale", ("in_chans",), minimum_px=8, fp16=False, fixed=_SWIN_FIXED,
    choices={"upsampler": WINDOWED, "resi_connection": CONVOLUTIONS},
)  # fmt: skip
_DRCT = Family(
    "DRCT", "DRCT", "upscale", ("in_chans",), multiple_of=16, minimum_px=16, fp16=False,
    fixed={**_SWIN_FIXED, "qk_scale": None},
    choices={"upsampler": ("pixelshuffle",), "resi_connection": ("1conv", "identity")},
)  # fmt: skip
_RGT = Family(
    "RGT", "RGT", "upscale", ("in_chans",), minimum_px=16, fp16=False, fixed=_PLAIN,
    choices={"resi_connection": CONVOLUTIONS},
)  # fmt: skip
_GRL = Family(
    "GRL", "GRL", "upscale", ("in_channels", "out_channels"), fp16=False,
    fixed={
        "fairscale_checkpoint": False, "offload_to_cpu": False, "init_method": "n", "euclidean_dist": False,
        "stripe_shift": True, "stripe_groups": [None, None], "img_range": 1.0, "pretrained_window_size": [0, 0],
        "pretrained_stripe_size": [0, 0],
    },
    choices={"upsampler": WINDOWED},
    described_by=("table_w", "table_sh", "index_sh_a2w"),
)  # fmt: skip
_ESRGAN = Family(
    "ESRGAN", "ESRGAN", "scale", ("in_nc", "out_nc"), scales=(1, 2, 4, 8), minimum_px=2, hidden=("shuffle_factor",),
    fixed={"norm": None, "act": "leakyrelu", "upsampler": "upconv", "mode": "CNA"}, extra={"use_pixel_unshuffle": True},
)  # fmt: skip
_SPAN = Family(
    "SPAN", "SPAN", "upscale", ("num_in_ch", "num_out_ch"),
    fixed={"img_range": 255.0, "rgb_mean": [0.4488, 0.4371, 0.404]}, unused=r"\.eval_conv\.",
)  # fmt: skip
_REALPLKSR = Family(
    "PLKSR", "RealPLKSR", "upscaling_factor", ("in_ch", "out_ch"), hidden=("dysample",), fixed={"norm_groups": 4},
    extra={"upsampler": "pixelshuffle"}, choices={"upsampler": ("pixelshuffle", "dysample")},
)  # fmt: skip
_PLKSR = Family(
    "PLKSR", "PLKSR", "upscaling_factor", (),
    fixed={
        "use_max_kernel": False, "with_idt": False, "sparse_kernels": [5, 5, 5, 5], "sparse_dilations": [1, 2, 3, 4],
    },
    choices={"lk_type": ("PLK", "SparsePLK")},
)  # fmt: skip
_COMPACT = Family(
    "Compact", "Compact", "upscale", ("num_in_ch", "num_out_ch"), fixed={"act_type": "prelu", "learn_residual": True}
)
_FDAT = Family(
    "FDAT", "FDAT", "scale", ("num_in_ch", "num_out_ch"), fixed={"group_block_pattern": None, "img_range": 1.0},
    choices={"upsampler_type": ("transpose+conv", "pixelshuffle", "pixelshuffledirect", "nearest+conv")},
    unused=r"^groups\.\d+\.blocks\.(\d*[02468]\.inter\.sg|\d*[13579]\.inter\.cg)\.",  # spatial and channel blocks
)  # fmt: skip
_MOSR = Family(
    "MoSR", "MoSR", "upscale", ("in_ch", "out_ch"), choices={"upsampler": ("ps", "gps", "dys")},
    other_words={"pixelshuffle": "ps", "geoensemblepixelshuffle": "gps", "dysample": "dys"},
)  # fmt: skip
_MOESR = Family(
    "MoESR", "MoESR", "scale", ("in_ch", "out_ch"), minimum_px=2,
    choices={"upsampler": ("pixelshuffledirect", "pixelshuffle", "nearest+conv", "dysample")},
)  # fmt: skip
_RCAN = Family("RCAN", "RCAN", "scale", ("n_colors",), fp16=False, fixed={"act_mode": "relu", "res_scale": 1})
_SAFMN = Family("SAFMN", "SAFMN", "upscaling_factor", (), multiple_of=8, minimum_px=8, fp16=False)
_SEEMORE = Family(
    "SeemoRe", "SeemoRe", "scale", ("in_chans",), minimum_px=16, fp16=False, one_at_a_time=True,
    fixed={"topk": 1, "img_range": 1.0},
)  # fmt: skip
_CUGAN = Family(
    "RealCUGAN", "UpCunet2x", "", ("in_channels", "out_channels"), scales=(2, 3, 4), minimum_px=32,
    extra={"fast": False},
)  # fmt: skip
_NAFNET = Family("NAFNet", "NAFNet", "", ("img_channel",), scales=(1,), fp16=False)
_SIX = (6,) * 6
_NAFNET_BLOCKS = {"middle_blk_num": 12, "enc_blk_nums": [2, 2, 4, 8], "dec_blk_nums": [2, 2, 2, 2]}

_HAT_SIZES = {
    "window_size": 16, "depths": _SIX, "num_heads": _SIX, "mlp_ratio": 2.0,
    "embed_dim": 180, "compress_ratio": 3, "squeeze_factor": 30,
}  # fmt: skip
_SWIN_SIZES = {
    "s": {"embed_dim": 60, "depths": (6,) * 4, "num_heads": (6,) * 4, "upsampler": "pixelshuffledirect"},
    "m": {"embed_dim": 180, "depths": _SIX, "num_heads": _SIX, "upsampler": "pixelshuffle"},
    "l": {
        "embed_dim": 240, "depths": (6,) * 9, "num_heads": (8,) * 9, "upsampler": "nearest+conv",
        "resi_connection": "3conv",
    },
}  # fmt: skip
_SWIN = {"window_size": 8, "mlp_ratio": 2.0}
_GRL_SIZES = {
    "upsampler": "pixelshuffle", "window_size": 32, "stripe_size": [64, 64], "mlp_ratio": 2.0,
    "anchor_window_down_factor": 4,
}  # fmt: skip
_DRCT_SIZES = {"upsampler": "pixelshuffle"}

Sizes = Mapping[str, Any]

# name in lower case -> the family, and where the published sizes differ from the constructor's own
NETWORKS: Mapping[str, tuple[Family, Sizes]] = {
    "atd": (_ATD, {
        "img_size": 96, "embed_dim": 210, "depths": _SIX, "num_heads": _SIX, "window_size": 16, "num_tokens": 128,
        "reducted_dim": 20, "upsampler": "pixelshuffle",
    }),
    "atd_light": (_ATD, {
        "embed_dim": 48, "window_size": 16, "category_size": 128, "reducted_dim": 8, "convffn_kernel_size": 7,
        "mlp_ratio": 1.0, "upsampler": "pixelshuffledirect",
    }),
    "compact": (_COMPACT, {}),
    "ultracompact": (_COMPACT, {"num_conv": 8}),
    "superultracompact": (_COMPACT, {"num_feat": 24, "num_conv": 8}),
    "craft": (Family(
        "CRAFT", "CRAFT", "upscale", ("in_chans",), multiple_of=16, minimum_px=16, fixed=_PLAIN,
        choices={"resi_connection": ("1conv", "identity")},
    ), {}),
    "dat": (_DAT, {"split_size": [8, 32], "depth": _SIX, "num_heads": _SIX}),
    "dat_s": (_DAT, {"split_size": [8, 16], "depth": _SIX, "num_heads": _SIX, "expansion_factor": 2.0}),
    "dat_2": (_DAT, {"split_size": [8, 32], "depth": _SIX, "num_heads": _SIX, "expansion_factor": 2.0}),
    "dat_light": (_DAT, {
        "split_size": [8, 32], "depth": [18], "embed_dim": 60, "num_heads": [6], "expansion_factor": 2.0,
        "resi_connection": "3conv", "upsampler": "pixelshuffledirect",
    }),
    "dctlsa": (Family(
        "DCTLSA", "DCTLSA", "upscale", ("in_nc", "out_nc"), minimum_px=16, fp16=False,
        fixed={"num_modules": 6, "num_head": 5},  # wired for six
    ), {}),
    "ditn_real": (Family(
        "DITN", "DITN", "upscale", ("inp_channels",), multiple_of=8, minimum_px=8,
        fixed={"LayerNorm_type": "WithBias", "patch_size": 8},
    ), {}),
    "drct": (_DRCT, _DRCT_SIZES),
    "drct_l": (_DRCT, {**_DRCT_SIZES, "depths": (6,) * 12, "num_heads": (6,) * 12}),
    "drct_xl": (_DRCT, {**_DRCT_SIZES, "depths": (6,) * 14, "num_heads": (6,) * 14}),
    "esrgan": (_ESRGAN, {}),
    "esrgan_lite": (_ESRGAN, {"num_filters": 32, "num_blocks": 12}),
    "fdat_tiny": (_FDAT, {
        "embed_dim": 96, "num_groups": 2, "depth_per_group": 2, "num_heads": 3, "ffn_expansion_ratio": 1.5,
        "drop_path_rate": 0.05,
    }),
    "fdat_light": (_FDAT, {"embed_dim": 108, "num_groups": 3, "depth_per_group": 2, "drop_path_rate": 0.08}),
    "fdat_medium": (_FDAT, {}),
    "fdat_large": (_FDAT, {"embed_dim": 180, "depth_per_group": 4, "num_heads": 6}),
    "fdat_xl": (_FDAT, {"embed_dim": 180, "num_groups": 6, "depth_per_group": 6, "num_heads": 6}),
    "grl_t": (_GRL, {
        **_GRL_SIZES, "embed_dim": 64, "depths": [4] * 4, "num_heads_window": [2] * 4, "num_heads_stripe": [2] * 4,
        "upsampler": "pixelshuffledirect",
    }),
    "grl_s": (_GRL, {
        **_GRL_SIZES, "embed_dim": 128, "depths": [4] * 4, "num_heads_window": [2] * 4, "num_heads_stripe": [2] * 4,
    }),
    "grl_b": (_GRL, {
        **_GRL_SIZES, "embed_dim": 180, "depths": [4, 4, 8, 8, 8, 4, 4], "num_heads_window": [3] * 7,
        "num_heads_stripe": [3] * 7, "local_connection": True,
    }),
    "hat_s": (_HAT, {**_HAT_SIZES, "embed_dim": 144, "compress_ratio": 24, "squeeze_factor": 24}),
    "hat_m": (_HAT, _HAT_SIZES),
    "hat_l": (_HAT, {**_HAT_SIZES, "depths": (6,) * 12, "num_heads": (6,) * 12}),
    "mmrealsr": (Family(
        "MMRealSR", "MMRealSR", "scale", ("num_in_ch", "num_out_ch"), scales=(4,), minimum_px=16,
        fixed={"de_net_type": "DEResNet", "degradation_degree_actv": "sigmoid"}, returns_more=True,
    ), {}),
    "moesr": (_MOESR, {}),
    "mosr": (_MOSR, {}),
    "mosr_t": (_MOSR, {"n_block": 5, "dim": 48}),
    "nafnet32": (_NAFNET, {"width": 32, **_NAFNET_BLOCKS}),
    "nafnet64": (_NAFNET, {"width": 64, **_NAFNET_BLOCKS}),
    "omnisr": (Family(
        "OmniSR", "OmniSR", "up_scale", ("num_in_ch", "num_out_ch"), minimum_px=16,
    ), {"res_num": 5}),
    "plksr": (_PLKSR, {"ccm_type": "DCCM"}),
    "plksr_tiny": (_PLKSR, {"ccm_type": "DCCM", "n_blocks": 12, "kernel_size": 13, "use_ea": False}),
    "rcan": (_RCAN, {}),
    "realcugan": (_CUGAN, {}),
    "realplksr": (_REALPLKSR, {"layer_norm": True}),
    "realplksr_tiny": (_REALPLKSR, {"layer_norm": True, "n_blocks": 12, "kernel_size": 13, "use_ea": False}),
    "rgt": (_RGT, {"depth": (6,) * 8, "num_heads": (6,) * 8, "mlp_ratio": 2.0, "split_size": [8, 32]}),
    "rgt_s": (_RGT, {"depth": _SIX, "num_heads": _SIX, "mlp_ratio": 2.0, "split_size": [8, 32]}),
    "safmn": (_SAFMN, {"dim": 36}),
    "safmn_l": (_SAFMN, {"dim": 128, "n_blocks": 16}),
    "safmnbcie": (Family(
        "SAFMNBCIE", "SAFMNBCIE", "", (), scales=(1,), multiple_of=16, minimum_px=16, fp16=False,
    ), {"dim": 48}),
    "scunet": (Family(
        "SCUNet", "SCUNet", "", ("in_nc",), scales=(1,), minimum_px=40, fixed={"input_resolution": 256},
    ), {}),
    "seemore_t": (_SEEMORE, {"num_experts": 3, "embedding_dim": 36, "lr_space": "exp"}),
    "seemore_b": (_SEEMORE, {"num_experts": 3, "embedding_dim": 48, "num_layers": 8, "lr_space": "exp"}),
    "seemore_l": (_SEEMORE, {
        "num_experts": 3, "embedding_dim": 48, "num_layers": 16, "lr_space": "exp", "use_shuffle": False,
        "recursive": 1,
    }),
    "span": (_SPAN, {"feature_channels": 52, "norm": False}),
    "span_s": (_SPAN, {"feature_channels": 48, "norm": False}),
    "span_f32": (_SPAN, {"feature_channels": 32, "norm": False}),
    "span_f48": (_SPAN, {"feature_channels": 48, "norm": False}),
    "span_f64": (_SPAN, {"feature_channels": 64, "norm": False}),
    "span_f96": (_SPAN, {"feature_channels": 96, "norm": False}),
    "swiftsrgan": (Family(
        "SwiftSRGAN", "SwiftSRGAN", "upscale_factor", ("in_channels",), scales=(1, 2, 4, 8),
        unused=r"^(residual\.\d+\.block2|convblock)\.act\.",
    ), {}),
    "swin2sr_s": (_SWIN2SR, {**_SWIN, **_SWIN_SIZES["s"]}),
    "swin2sr_m": (_SWIN2SR, {**_SWIN, **_SWIN_SIZES["m"]}),
    "swin2sr_l": (_SWIN2SR, {**_SWIN, **_SWIN_SIZES["l"]}),
    "swinir_s": (_SWINIR, {**_SWIN, **_SWIN_SIZES["s"]}),
    "swinir_m": (_SWINIR, {**_SWIN, "img_size": 48, **_SWIN_SIZES["m"]}),
    "swinir_l": (_SWINIR, {**_SWIN, **_SWIN_SIZES["l"]}),
}  # fmt: skip

# how else these are called
ALIASES: Mapping[str, str] = {
    "ditn": "ditn_real",
    "fdat": "fdat_medium",
    "grl": "grl_b",
    "hat": "hat_m",
    "nafnet": "nafnet32",
    "plksr_t": "plksr_tiny",
    "realplksr_s": "realplksr_tiny",
    "rrdbnet": "esrgan",
    "seemore": "seemore_t",
    "srvggnetcompact": "compact",
    "swin2sr": "swin2sr_m",
    "swinir": "swinir_m",
}

# architectures that people may ask for, and why there is none
ABSENT: Mapping[str, str] = {
    "ipt": "IPT takes pictures of one size from 0 to 255, and spandrel reads its files back as another network",
    **dict.fromkeys(("aurasr", "gfpgan", "restoreformer"), "this is no upscaler that is trained on pairs of pictures"),
    **dict.fromkeys(
        (
            "artcnn", "artcnn_r16f96", "artcnn_r8f48", "artcnn_r8f64", "camixersr", "cfsr", "cascadedgaze",
            "dis_balanced", "dis_fast", "dwt", "dwt_s", "edsr", "eimn_a", "eimn_l", "elan", "elan_light", "emt",
            "escrealm", "escrealm_xl", "flexnet", "metaflexnet", "gaterv3_r", "gaterv3_s", "heart", "hit_sir",
            "hit_sng", "hit_srf", "lkfmixer_b", "lkfmixer_l", "lkfmixer_t", "lmlt_base", "lmlt_large", "lmlt_tiny",
            "man", "man_light", "man_tiny", "moesr2", "mosrv2", "rtmosr", "rtmosr_l", "rtmosr_ul", "scunet_aaf6aa",
            "sebica", "sebica_mini", "spanplus", "spanplus_s", "spanplus_st", "spanplus_sts", "srformer",
            "srformer_light", "srformerv2", "srresnet", "temporalspan", "tscunet",
        ),
        "traiNNer-redux has it, but spandrel does not, so that no other program could open the result",
    ),
}  # fmt: skip
