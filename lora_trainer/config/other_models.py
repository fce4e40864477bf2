"""Keys of the kohya_ss GUI that are for other families of models; it writes them into every preset."""

from __future__ import annotations

from types import MappingProxyType

# These choose the family, so they say that the preset is for it; anything else in the GUI's tabs may be left over.
SWITCHES = MappingProxyType(
    {
        "flux1_checkbox": "Flux",
        "sd3_checkbox": "SD 3",
        "lumina_checkbox": "Lumina",
        "hunyuan_image_checkbox": "HunyuanImage",
        "anima_checkbox": "Anima",
    }
)

# The parts of such a model; a path here says the same.
PARTS = MappingProxyType(
    {
        "ae": "Flux",
        "clip_l": "Flux",
        "t5xxl": "Flux",
        "clip_g": "SD 3",
        "gemma2": "Lumina",
        "byt5": "HunyuanImage",
        "text_encoder": "HunyuanImage",
        "qwen3": "Anima",
        "llm_adapter_path": "Anima",
        "t5_tokenizer_path": "Anima",
    }
)

LAYERS = MappingProxyType({"Flux1": "Flux", "Flux1 OFT": "Flux", "LyCORIS/Flux": "Flux"})  # values of LoRA_type


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPTIONS = MappingProxyType(
    {
        "Flux": _words(
            """
            apply_t5_attn_mask blockwise_fused_optimizers cpu_offload_checkpointing discrete_flow_shift
            double_blocks_to_swap enable_all_linear flux1_cache_text_encoder_outputs
            flux1_cache_text_encoder_outputs_to_disk flux_fused_backward_pass guidance_scale img_attn_dim img_mlp_dim
            img_mod_dim in_dims mem_eff_save model_prediction_type single_blocks_to_swap single_dim single_mod_dim
            split_mode split_qkv t5xxl_max_token_length timestep_sampling train_blocks train_double_block_indices
            train_single_block_indices train_t5xxl txt_attn_dim txt_mlp_dim txt_mod_dim
            """
        ),
        "SD 3": _words(
            """
            clip_g_dropout_rate clip_l_dropout_rate disable_mmap_load_safetensors enable_scaled_pos_embed logit_mean
            logit_std mode_scale pos_emb_random_crop_rate save_clip save_t5xxl sd3_cache_text_encoder_outputs
            sd3_cache_text_encoder_outputs_to_disk sd3_fused_backward_pass sd3_text_encoder_batch_size t5_dropout_rate
            t5xxl_device t5xxl_dtype training_shift weighting_scheme
            """
        ),
        "Lumina": _words(
            """
            cache_text_encoder_outputs gemma2_max_token_length sigmoid_scale system_prompt use_flash_attn
            use_sage_attn
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
            qwen3_max_token_length t5_max_token_length unsloth_offload_checkpointing vae_disable_cache
            """
        ),
    }
)

FAMILY_OF_OPTION = MappingProxyType({key: family for family, keys in OPTIONS.items() for key in keys})
KEYS = frozenset(SWITCHES) | frozenset(PARTS) | frozenset(FAMILY_OF_OPTION)


def family_asked_for(key: str, value: object) -> str | None:
    """The family that this key and value ask for, or None when the value asks for nothing.

    Options alone ask for nothing: the GUI writes their widget's value into every preset, and its defaults have changed.
    """
    if key in SWITCHES:
        return SWITCHES[key] if str(value).strip().casefold() in ("true", "1", "1.0") else None
    if key in PARTS:
        return PARTS[key] if isinstance(value, str) and value.strip() else None
    if key == "LoRA_type":
        return LAYERS.get(str(value).strip())
    return None


def leftovers(keys: list[str]) -> dict[str, str]:
    """One reason for each family, at the first of its keys."""
    reasons = {}
    for family in OPTIONS:
        mine = [key for key in keys if FAMILY_OF_OPTION.get(key) == family]
        if mine:
            others = f", as are {', '.join(mine[1:])}" if mine[1:] else ""
            reasons[mine[0]] = f"read for {family} models only{others}"
    return reasons
