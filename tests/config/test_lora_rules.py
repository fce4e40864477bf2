"""What keys mean together: contradictions are refused, idle keys are listed, surprises are noted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lora_trainer.config.reader import Loaded

Load = Callable[..., Loaded]
Problems = Callable[..., list[str]]

ALL_TAGS_STAY = (
    "shuffle_caption, caption_tag_dropout_rate and token_warmup_step are off, so that all tags stay where they are"
)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"color_aug": True},
            [
                "6:16 color_aug: changes the image at every step, but "
                "cache_latents encodes it once; turn one of them off",
            ],
        ),
        (
            {"random_crop": True, "cache_latents": False, "cache_latents_to_disk": True},
            [
                "6:18 random_crop: changes the image at every step, but cache_latents_to_disk "
                "encodes it once; turn one of them off",
            ],
        ),
        (
            {"sdxl": True, "sdxl_cache_text_encoder_outputs": True},
            [
                "7:38 sdxl_cache_text_encoder_outputs: captions are encoded once, but the text "
                "encoders are trained; set "
                "text_encoder_lr to 0 or turn this off"
            ],
        ),
        (
            {"sdxl": True, "sdxl_cache_text_encoder_outputs": True, "text_encoder_lr": 0, "shuffle_caption": True},
            [
                "9:22 shuffle_caption: changes the caption at every step, but "
                "sdxl_cache_text_encoder_outputs encodes it once; "
                "turn one of them off"
            ],
        ),
        (
            {"sdxl": True, "sdxl_cache_text_encoder_outputs": True, "text_encoder_lr": 0, "token_warmup_step": 0.1},
            [
                "9:24 token_warmup_step: changes the caption at every step, but "
                "sdxl_cache_text_encoder_outputs encodes it "
                "once; turn one of them off"
            ],
        ),
        (
            {
                "sdxl": True,
                "sdxl_cache_text_encoder_outputs": True,
                "text_encoder_lr": 0,
                "caption_tag_dropout_rate": 0.1,
                "enable_wildcard": True,
            },
            [
                f"{place}: changes the caption at every step, but sdxl_cache_text_encoder_outputs encodes it once; "
                "turn one of them off"
                for place in ("9:31 caption_tag_dropout_rate", "10:22 enable_wildcard")
            ],
        ),
        (
            {"keep_tokens_separator": "|", "shuffle_caption": True, "secondary_separator": ","},
            [
                "8:26 secondary_separator: the same as caption_separator; write another sign for one of them",
            ],
        ),
        ({"v2": True, "sdxl": True}, ["6:9 v2: a model is either SD 2.x or SDXL; turn v2 or sdxl off"]),
        (
            {"min_timestep": 501, "max_timestep": 500},
            ["6:19 min_timestep: 501 must not be more than max_timestep, 500"],
        ),
        ({"max_timestep": 1001}, ["6:19 max_timestep: found 1001; write a whole number from 1 to 1000"]),
        (
            {"adaptive_noise_scale": 0.1},
            ["6:27 adaptive_noise_scale: needs a noise_offset to add to; set noise_offset, or this to 0"],
        ),
        (
            {"v_pred_like_loss": 0.5, "v_parameterization": True},
            [
                "6:23 v_pred_like_loss: makes a noise loss like a v-prediction loss, which "
                "v_parameterization already is; set "
                "it to 0"
            ],
        ),
        (
            {"scale_v_pred_loss_like_noise_pred": True},
            [
                "6:40 scale_v_pred_loss_like_noise_pred: scales a v-prediction loss, but "
                "v_parameterization is off; turn this "
                "off"
            ],
        ),
        (
            {"LoRA_type": "LyCORIS/DyLoRA", "network_dim": 10, "unit": 4, "conv_dim": 4},
            ["7:18 network_dim: 10 is not a multiple of unit, 4, as LyCORIS/DyLoRA needs"],
        ),
        (
            {"network_dim": 100000},
            [
                "6:18 network_dim: 100000 stands for a full matrix, which only LyCORIS/LoKr has; write a rank, "
                "such as 32",
            ],
        ),
        (
            {"dim_from_weights": True},
            ["6:23 dim_from_weights: needs network_weights, which is empty; name a LoRA file or turn this off"],
        ),
        (
            {"fp8_base": True, "mixed_precision": "no"},
            ["6:15 fp8_base: needs mixed_precision bf16 or fp16 to compute in, which is no"],
        ),
        (
            {"train_batch_size": "auto", "dataset_config": "sets.toml"},
            [
                "6:23 train_batch_size: a dataset_config may have batch sizes of its own, which auto would not be "
                "found for; write a number"
            ],
        ),
        (
            {"int8_base": True, "LoRA_type": "LyCORIS/LoHa"},
            [
                "6:16 int8_base: goes with LoRA_type Standard, Kohya LoCon, LoRA-FA, which is LyCORIS/LoHa; "
                "fp8_base goes with all"
            ],
        ),
        (
            {"lr_scheduler": "piecewise_constant"},
            ["6:19 lr_scheduler_args: piecewise_constant needs its steps; write step_rules='1:1000,0.1:2000,0.01'"],
        ),
        (
            {"lr_scheduler": "warmup_stable_decay"},
            [
                "6:19 lr_decay_steps: warmup_stable_decay needs the steps over which it falls, "
                "such as 0.1 for a tenth of all"
            ],
        ),
        (
            {"full_bf16": True},
            ["6:16 full_bf16: needs mixed_precision bf16, which is fp16"],
        ),
        (
            {"bucket_no_upscale": False, "min_bucket_reso": 768},
            ["7:22 min_bucket_reso: 768 is more than the shorter side of max_resolution, 512"],
        ),
        (
            {"bucket_no_upscale": False, "max_bucket_reso": 512, "max_resolution": "512,640"},
            ["7:22 max_bucket_reso: 512 is less than the longer side of max_resolution, 640"],
        ),
        (
            {"bucket_no_upscale": False, "max_resolution": "128"},
            ["7:21 min_bucket_reso: 256 is more than the shorter side of max_resolution, 128"],
        ),
        (
            {"learning_rate": 0, "unet_lr": 0, "text_encoder_lr": ""},
            [
                "6:20 learning_rate: 0, as are unet_lr and text_encoder_lr, so nothing would be "
                "trained; set one of them, such as 1e-4"
            ],
        ),
    ],
)
def test_a_contradiction_is_refused(problems: Problems, keys: dict[str, object], expected: list[str]) -> None:
    assert problems(**keys) == expected


def test_a_contradiction_of_overrides_names_both_keys(problems: Problems) -> None:
    assert problems(["sdxl=true"], v2=True) == ["6:9 v2: a model is either SD 2.x or SDXL; turn v2 or sdxl off"]
    assert problems(["max_resolution=128"], bucket_no_upscale=False) == [
        "--set max_resolution=128: min_bucket_reso: 256 is more than the shorter side of max_resolution, 128"
    ]


@pytest.mark.parametrize(
    ("keys", "inert"),
    [
        ({"sdxl": True, "clip_skip": 2}, {"clip_skip": "SDXL always takes the layer before the last"}),
        ({"sdxl": False, "clip_skip": 2}, {}),
        ({"sdxl_no_half_vae": True}, {"sdxl_no_half_vae": "read for SDXL only"}),
        ({"sdxl_no_half_vae": False}, {}),
        ({"int8_matmul": True}, {"int8_matmul": "int8_base is false"}),
        ({"int8_matmul": True, "int8_base": True}, {}),
        ({"conv_dim": 1, "conv_alpha": 0}, {}),
        ({"conv_dim": 32}, {"conv_dim": "LoRA_type Standard does not read it"}),
        ({"conv_dim": 32, "LoRA_type": "Kohya LoCon"}, {}),
        ({"factor": 8, "LoRA_type": "LoCon"}, {"factor": "LoRA_type LyCORIS/LoCon does not read it"}),
        ({"factor": 8, "decompose_both": True, "use_tucker": True, "LoRA_type": "LoKr"}, {}),
        ({"conv_dim": 8, "LoRA_type": "iA3"}, {"conv_dim": "LoRA_type LyCORIS/iA3 does not read it"}),
        (
            {"bypass_mode": True, "network_dim": 4, "LoRA_type": "LyCORIS/DyLoRA"},
            {"bypass_mode": "LoRA_type LyCORIS/DyLoRA does not read it"},
        ),
        ({"network_dim": 16, "LoRA_type": "iA3"}, {"network_dim": "LoRA_type LyCORIS/iA3 has no rank"}),
        (
            {"network_dropout": 0.1, "LoRA_type": "LoHa"},
            {"network_dropout": "LyCORIS/LoHa reads it in bypass_mode only"},
        ),
        ({"huber_c": 0.2}, {"huber_c": "read by the Huber losses only; loss_type is l2"}),
        ({"huber_c": 0.2, "loss_type": "huber"}, {}),
        (
            {"lr_scheduler_type": "CosineAnnealingLR", "lr_scheduler_args": "T_max=10", "lr_scheduler_num_cycles": 2},
            {"lr_scheduler_num_cycles": "lr_scheduler_type has options of its own"},
        ),
        (
            {"loraplus_lr_ratio": 4, "loraplus_unet_lr_ratio": 2, "loraplus_text_encoder_lr_ratio": 3},
            {"loraplus_lr_ratio": "loraplus_unet_lr_ratio and loraplus_text_encoder_lr_ratio are set"},
        ),
        ({"keep_tokens": 3}, {"keep_tokens": ALL_TAGS_STAY}),
        ({"token_warmup_min": 3}, {"token_warmup_min": "read beside token_warmup_step only, which is 0"}),
        ({"token_warmup_min": 3, "token_warmup_step": 0.5, "keep_tokens": 1}, {}),
        ({"caption_tag_dropout_rate": 0.1, "keep_tokens": 1}, {}),
        (
            {"cache_text_encoder_outputs_to_disk": True},
            {
                "cache_text_encoder_outputs_to_disk": "read beside sdxl_cache_text_encoder_outputs only, which is off",
            },
        ),
        (
            {"sdxl_cache_text_encoder_outputs": True, "cache_text_encoder_outputs_to_disk": True},
            {
                "sdxl_cache_text_encoder_outputs": "read for SDXL only",
                "cache_text_encoder_outputs_to_disk": "read for SDXL only",
            },
        ),
        (
            {"sdxl": True, "sdxl_cache_text_encoder_outputs": True, "text_encoder_lr": 0, "caption_dropout_rate": 0.1},
            {},
        ),
        ({"keep_tokens": 3, "shuffle_caption": True}, {}),
        ({"noise_offset": 0.1, "noise_offset_type": "Multires"}, {"noise_offset": "noise_offset_type is Multires"}),
        (
            {"multires_noise_iterations": 8, "multires_noise_discount": 0.2},
            {
                "multires_noise_iterations": "noise_offset_type is Original",
                "multires_noise_discount": "noise_offset_type is Original",
            },
        ),
        ({"multires_noise_iterations": 8, "noise_offset_type": "multires"}, {}),
        ({"min_bucket_reso": 4096, "enable_bucket": False}, {"min_bucket_reso": "enable_bucket is off"}),
        ({"dynamo_mode": "max-autotune"}, {"dynamo_mode": "an option of the launcher's compiler"}),
        ({"num_processes": 4}, {"num_processes": "an option of the launcher: accelerate launch --num_processes"}),
        (
            {"persistent_data_loader_workers": True},
            {"persistent_data_loader_workers": "reading processes always stay from one epoch to the next"},
        ),
        (
            {"learning_rate": 2e-4},
            {"learning_rate": "unet_lr and text_encoder_lr are set, so that nothing takes this rate"},
        ),
        ({"learning_rate": 2e-4, "unet_lr": 0, "text_encoder_lr": 0}, {}),
        ({"epoch": 9, "max_train_steps": 5}, {"epoch": "max_train_steps is 5"}),
        (
            {"epoch": 9, "max_train_steps": 5, "max_train_epochs": 3},
            {"epoch": "max_train_epochs is 3", "max_train_steps": "max_train_epochs is 3"},
        ),
        (
            {"lr_scheduler_power": 2, "lr_scheduler_num_cycles": 3},
            {
                "lr_scheduler_num_cycles": "read by cosine_with_restarts, cosine_with_min_lr, warmup_stable_decay only",
                "lr_scheduler_power": "read by polynomial only",
            },
        ),
        ({"sample_prompts": "a cat", "sample_at_first": True}, {"sample_at_first": "no previews are due"}),
        ({"sample_sampler": "ddim"}, {"sample_sampler": "no previews are drawn"}),
        ({"sample_prompts": "a cat", "sample_every_n_steps": 5}, {}),
        ({"wandb_api_key": "k", "log_with": "all"}, {}),
        ({"mem_eff_attn": True}, {"mem_eff_attn": "xformers is xformers, which comes first"}),
        ({"mem_eff_attn": True, "xformers": "none"}, {}),
        ({"lr_warmup": 5, "lr_warmup_steps": 20}, {"lr_warmup": "lr_warmup_steps is 20"}),
        ({"prior_loss_weight": 0.5}, {"prior_loss_weight": "there are no regularisation images"}),
    ],
)
def test_a_key_that_does_nothing_is_listed_with_the_reason(
    load: Load, keys: dict[str, object], inert: dict[str, str]
) -> None:
    assert load(**keys).inert == inert


@pytest.mark.parametrize(
    ("keys", "notes"),
    [
        ({"text_encoder_lr": 0}, ["text_encoder_lr: 0 leaves the text encoder untrained; the UNet is trained"]),
        (
            {"prior_loss_weight": 0, "reg_data_dir": "reg"},
            ["prior_loss_weight: 0 leaves the regularisation images without effect; kohya_ss would have made it 1"],
        ),
        ({"unet_lr": 0}, ["unet_lr: 0 leaves the UNet untrained; the text encoder is trained"]),
        (
            {"lr_scheduler": "constant", "lr_warmup": 5},
            ["lr_warmup: 5 % of the steps rise from 0 and the rest are constant, as with constant_with_warmup"],
        ),
        (
            {"lr_scheduler": "constant", "lr_warmup_steps": 0.1},
            ["lr_warmup_steps: 10 % of the steps rise from 0 and the rest are constant, as with constant_with_warmup"],
        ),
        (
            {"optimizer": "Prodigy", "unet_lr": 1, "text_encoder_lr": 0.5},
            ["text_encoder_lr: 0.5 is read as 1.0: Prodigy finds the rate itself"],
        ),
        (
            {"optimizer": "Adafactor", "unet_lr": 0, "text_encoder_lr": 0},
            ["learning_rate: 0.0001 is read as 1.0: Adafactor finds the rate itself"],
        ),
        ({"optimizer": "Adafactor", "optimizer_args": "relative_step=False"}, []),
        ({"network_alpha": 0}, ["network_alpha: 0 stands for network_dim, 8; kohya_ss would have made it 1"]),
        (
            {"lr_scheduler": "polynomial", "lr_scheduler_power": 0},
            ["lr_scheduler_power: 0 is taken as it stands, so that the rate stays; kohya_ss would have made it 1"],
        ),
        (
            {"noise_offset_type": "Multires", "multires_noise_iterations": 6, "multires_noise_discount": 0},
            ["multires_noise_discount: 0 is taken as it stands; kohya_ss would have made it 0.3"],
        ),
        ({"keep_tokens_separator": "|"}, [f"keep_tokens_separator: only becomes a caption_separator: {ALL_TAGS_STAY}"]),
        ({"keep_tokens_separator": "|", "shuffle_caption": True}, []),
        ({"seed": 0}, ["seed: 0 draws a new seed for each run"]),
    ],
)
def test_what_can_be_honoured_is_noted(load: Load, keys: dict[str, object], notes: list[str]) -> None:
    assert list(load(**{"seed": 1, **keys}).notes) == notes
