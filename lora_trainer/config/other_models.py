"""Keys of the kohya_ss GUI that are for other families of models; it writes them into every preset."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# These choose the family, so they say that the preset is for it; anything else in the GUI's tabs may be left over.
SWITCHES = MappingProxyType(
    {
        "flux1_checkbox": "Flux",
        "sd3_checkbox": "SD 3",
        "lumina_checkbox": "Lumina",
        "hunyuan_image_checkbox": "HunyuanImage",
        "anima_checkbox": "Anima",
        "train_inpainting": "inpainting",
    }
)

# The parts of such a model; a path here says the same, unless the family's switch is there and off.
PARTS = MappingProxyType(
    {
        "ae": "Flux",
        "clip_l": "Flux",
        "t5xxl": "Flux",
        "flux1_clip_l": "Flux",
        "flux1_t5xxl": "Flux",
        "clip_g": "SD 3",
        "sd3_clip_l": "SD 3",
        "sd3_t5xxl": "SD 3",
        "gemma2": "Lumina",
        "lumina_gemma2": "Lumina",
        "lumina_ae": "Lumina",
        "byt5": "HunyuanImage",
        "text_encoder": "HunyuanImage",
        "qwen3": "Anima",
        "llm_adapter_path": "Anima",
        "t5_tokenizer_path": "Anima",
        "anima_qwen3": "Anima",
        "anima_vae": "Anima",
        "anima_llm_adapter_path": "Anima",
        "anima_t5_tokenizer_path": "Anima",
    }
)

LAYERS = MappingProxyType(  # values of LoRA_type
    {
        "Flux1": "Flux",
        "Flux1 OFT": "Flux",
        "LyCORIS/Flux": "Flux",
        "SD3": "SD 3",
        "Lumina": "Lumina",
        "HunyuanImage-2.1": "HunyuanImage",
        "Anima": "Anima",
    }
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPTIONS = MappingProxyType(
    {
        "Flux": _words(
            """
            apply_t5_attn_mask blockwise_fused_optimizers cpu_offload_checkpointing discrete_flow_shift
            double_blocks_to_swap enable_all_linear flux1_cache_text_encoder_outputs
            flux1_cache_text_encoder_outputs_to_disk flux_fused_backward_pass ggpo_beta ggpo_sigma guidance_scale
            img_attn_dim img_mlp_dim img_mod_dim in_dims mem_eff_save model_prediction_type show_timesteps
            show_timesteps_resolution single_blocks_to_swap single_dim single_mod_dim split_mode split_qkv
            t5xxl_lr t5xxl_max_token_length timestep_sampling train_blocks train_double_block_indices train_lora_ggpo
            train_single_block_indices train_t5xxl txt_attn_dim txt_mlp_dim txt_mod_dim
            """
        ),
        "SD 3": _words(
            """
            clip_g_dropout_rate clip_l_dropout_rate disable_mmap_load_safetensors enable_scaled_pos_embed logit_mean
            logit_std mode_scale pos_emb_random_crop_rate save_clip save_t5xxl sd3_cache_text_encoder_outputs
            sd3_cache_text_encoder_outputs_to_disk sd3_clip_l_dropout_rate sd3_disable_mmap_load_safetensors
            sd3_enable_scaled_pos_embed sd3_fused_backward_pass sd3_t5_dropout_rate sd3_text_encoder_batch_size
            t5_dropout_rate
            t5xxl_device t5xxl_dtype training_shift weighting_scheme
            """
        ),
        "Lumina": _words(
            """
            cache_text_encoder_outputs gemma2_max_token_length lumina_cache_text_encoder_outputs
            lumina_cache_text_encoder_outputs_to_disk lumina_discrete_flow_shift lumina_gemma2_max_token_length
            lumina_model_prediction_type lumina_sigmoid_scale lumina_system_prompt lumina_timestep_sampling
            lumina_use_flash_attn lumina_use_sage_attn sigmoid_scale system_prompt use_flash_attn use_sage_attn
            """
        ),
        "HunyuanImage": _words(
            """
            attn_mode fp8_scaled fp8_vl hunyuan_image_cache_text_encoder_outputs
            hunyuan_image_cache_text_encoder_outputs_to_disk split_attn text_encoder_cpu vae_chunk_size
            """
        ),
        "Anima": _words(
            """
            anima_attn_mode anima_cache_text_encoder_outputs anima_cache_text_encoder_outputs_to_disk anima_compile
            anima_compile_backend anima_compile_cache_size_limit anima_compile_dynamic anima_compile_fullgraph
            anima_compile_mode anima_discrete_flow_shift anima_qwen3_max_token_length anima_qwen_image_vae_2d
            anima_sigmoid_scale anima_split_attn anima_t5_max_token_length anima_timestep_sampling
            anima_torch_compile anima_unsloth_offload_checkpointing anima_vae_chunk_size anima_vae_disable_cache
            qwen3_max_token_length t5_max_token_length unsloth_offload_checkpointing vae_disable_cache
            """
        ),
    }
)

FAMILY_OF_OPTION = MappingProxyType({key: family for family, keys in OPTIONS.items() for key in keys})
KEYS = frozenset(SWITCHES) | frozenset(PARTS) | frozenset(FAMILY_OF_OPTION)

# What the GUI writes where nobody touched the widget, besides what is empty, false or 0.
WIDGETS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "guidance_scale": (3.5, 1.0),
        "show_timesteps_resolution": ("1024,1024",),
        "discrete_flow_shift": (3.0, 1.0, 6.0),
        "model_prediction_type": ("sigma_scaled", "raw"),
        "timestep_sampling": ("sigma",),
        "train_blocks": ("all",),
        "t5xxl_max_token_length": (512,),
        "train_double_block_indices": ("all",),
        "train_single_block_indices": ("all",),
        "ggpo_sigma": (0.03,),
        "ggpo_beta": (0.01,),
        "logit_std": (1.0,),
        "mode_scale": (1.29,),
        "t5xxl_dtype": ("bf16",),
        "sd3_text_encoder_batch_size": (1,),
        "weighting_scheme": ("logit_normal",),
        "training_shift": (1.0,),
        "lumina_discrete_flow_shift": (6.0,),
        "lumina_model_prediction_type": ("raw",),
        "lumina_timestep_sampling": ("nextdit_shift", "shift"),
        "lumina_sigmoid_scale": (1.0,),
        "lumina_gemma2_max_token_length": (256,),
        "sigmoid_scale": (1.0,),
        "gemma2_max_token_length": (256,),
        "attn_mode": ("torch",),
        "anima_discrete_flow_shift": (1.0, 3.0),
        "anima_timestep_sampling": ("sigmoid", "shift"),
        "anima_sigmoid_scale": (1.0,),
        "anima_qwen3_max_token_length": (512,),
        "anima_t5_max_token_length": (512,),
        "anima_attn_mode": ("torch",),
        "anima_compile_backend": ("inductor",),
        "anima_compile_mode": ("default",),
        "anima_compile_dynamic": ("auto",),
        "qwen3_max_token_length": (512,),
        "t5_max_token_length": (512,),
    }
)


def family_asked_for(key: str, values: Mapping[str, object]) -> str | None:
    """The family that the key asks for with its value, or None when it asks for nothing. `values` are the preset's.

    Options alone ask for nothing: the GUI writes their widget's value into every preset.
    """
    value = values[key]
    if key in SWITCHES:
        return SWITCHES[key] if _is_on(value) else None
    if key in PARTS:
        named = isinstance(value, str) and bool(value.strip())
        return PARTS[key] if named and not _is_switched_off(PARTS[key], values) else None
    if key == "LoRA_type":
        return LAYERS.get(str(value).strip())
    return None


def _is_on(value: object) -> bool:
    return str(value).strip().casefold() in ("true", "1", "1.0")


def _is_switched_off(family: str, values: Mapping[str, object]) -> bool:
    switches = [key for key, named in SWITCHES.items() if named == family and key in values]
    return bool(switches) and not any(_is_on(values[key]) for key in switches)


def leftovers(values: Mapping[str, object]) -> dict[str, str]:
    """One reason for each family, at the first of its keys whose value says something."""
    said = [key for key, value in values.items() if not _is_untouched(key, value)]
    reasons = {}
    for family in OPTIONS:
        mine = [key for key in said if family in (FAMILY_OF_OPTION.get(key), PARTS.get(key))]
        if mine:
            others = f", as are {', '.join(mine[1:])}" if mine[1:] else ""
            reasons[mine[0]] = f"read for {family} models only{others}"
    return reasons


def _is_untouched(key: str, value: object) -> bool:
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    if str(value).strip().casefold() in ("false", "0", "0.0"):
        return True
    return any(str(usual) == str(value).strip() or usual == value for usual in WIDGETS.get(key, ()))
