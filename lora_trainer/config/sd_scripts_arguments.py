"""The arguments of sd-scripts' training scripts, as a command line or a TOML file gives them, and the keys they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from lora_trainer.config import other_models
from lora_trainer.config.kinds import Arguments, Switch
from lora_trainer.config.lora import LoraPreset
from lora_trainer.config.problems import shown
from lora_trainer.config.sd_scripts_network import FULL_MATRIX_DIM, NETWORK_KEYS, WITHOUT, lora_type
from lora_trainer.config.setting import keys_of
from lora_trainer.errors import did_you_mean

Takes = Literal["nothing", "one", "many"]
Keys = dict[str, object]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Arguments whose name and meaning are those of a key. What they take follows from the key's kind.
SAME = _words(
    """
    pretrained_model_name_or_path v2 v_parameterization vae train_data_dir reg_data_dir dataset_config masked_loss
    conditioning_data_dir alpha_mask color_aug random_crop flip_aug enable_bucket bucket_no_upscale min_bucket_reso
    max_bucket_reso bucket_reso_steps cache_latents cache_latents_to_disk skip_cache_check vae_batch_size
    caption_extension caption_separator shuffle_caption keep_tokens keep_tokens_separator secondary_separator
    enable_wildcard caption_prefix caption_suffix caption_dropout_rate caption_dropout_every_n_epochs
    caption_tag_dropout_rate token_warmup_min token_warmup_step max_token_length clip_skip weighted_captions
    network_dim network_alpha network_dropout network_weights dim_from_weights scale_weight_norms learning_rate unet_lr
    lr_scheduler lr_warmup_steps lr_scheduler_num_cycles lr_scheduler_power lr_scheduler_min_lr_ratio lr_decay_steps
    lr_scheduler_timescale lr_scheduler_args lr_scheduler_type optimizer_args max_grad_norm max_train_steps
    max_train_epochs train_batch_size gradient_accumulation_steps gradient_checkpointing torch_compile noise_offset
    noise_offset_random_strength adaptive_noise_scale multires_noise_iterations multires_noise_discount ip_noise_gamma
    ip_noise_gamma_random_strength min_timestep max_timestep min_snr_gamma debiased_estimation_loss v_pred_like_loss
    scale_v_pred_loss_like_noise_pred loss_type huber_schedule huber_c huber_scale zero_terminal_snr prior_loss_weight
    mixed_precision full_fp16 full_bf16 fp8_base fp8_base_unet max_data_loader_n_workers
    persistent_data_loader_workers highvram blocks_to_swap dynamo_backend output_dir output_name save_model_as
    save_precision save_every_n_epochs save_every_n_steps save_last_n_epochs save_last_n_epochs_state save_last_n_steps
    save_last_n_steps_state save_state save_state_on_train_end resume no_metadata training_comment metadata_title
    metadata_author metadata_description metadata_license metadata_tags huggingface_repo_id huggingface_token
    huggingface_repo_type huggingface_repo_visibility huggingface_path_in_repo save_state_to_huggingface async_upload
    sample_prompts sample_at_first sample_every_n_epochs sample_every_n_steps sample_sampler seed log_with logging_dir
    log_tracker_name log_tracker_config log_config wandb_api_key wandb_run_name validation_split
    validation_seed validate_every_n_steps validate_every_n_epochs max_validation_steps
    """
)
RENAMED = MappingProxyType(
    {
        "resolution": "max_resolution",
        "optimizer_type": "optimizer",
        "caption_extention": "caption_extension",
    }
)
FLAGS: Mapping[str, Keys] = MappingProxyType(
    {
        "xformers": {"xformers": "xformers"},
        "sdpa": {"xformers": "sdpa"},
        "mem_eff_attn": {"mem_eff_attn": True},
        "lowram": {"lowvram": True},
        "no_half_vae": {"sdxl_no_half_vae": True},
        "use_8bit_adam": {"optimizer": "AdamW8bit"},
        "use_lion_optimizer": {"optimizer": "Lion"},
        "use_safetensors": {"save_model_as": "safetensors"},
        "resume_from_huggingface": {"resume_from_huggingface": "resume"},
        "cache_text_encoder_outputs": {"sdxl_cache_text_encoder_outputs": True},
        "cache_text_encoder_outputs_to_disk": {
            "sdxl_cache_text_encoder_outputs": True,
            "cache_text_encoder_outputs_to_disk": True,
        },
        "network_train_unet_only": {"text_encoder_lr": 0},
        "network_train_text_encoder_only": {"unet_lr": 0},
    }
)
_PROCESSES = "the processes of a run are set up without it"
_CONSOLE = "the log goes to the console and into output_dir"
IDLE: Mapping[str, tuple[Takes, str]] = MappingProxyType(
    {
        "ddp_timeout": ("one", _PROCESSES),
        "ddp_gradient_as_bucket_view": ("nothing", _PROCESSES),
        "ddp_static_graph": ("nothing", _PROCESSES),
        "console_log_level": ("one", _CONSOLE),
        "console_log_file": ("one", _CONSOLE),
        "console_log_simple": ("nothing", _CONSOLE),
        "log_prefix": ("one", "the logs of a run have the name of output_name, and log_tracker_name around it"),
        "tokenizer_cache_dir": ("one", "the tokenizers come with the package or the base model"),
        "disable_mmap_load_safetensors": ("nothing", "files are read tensor by tensor"),
        "skip_until_initial_step": ("nothing", "a run that goes on never sees the same batches again"),
        "cache_info": ("nothing", "captions are read anew for each run"),
        "fused_backward_pass": ("nothing", "it is for full fine-tuning; sd-scripts does not read it for a LoRA"),
        "cpu_offload_checkpointing": ("nothing", "it is for Flux; sd-scripts does not read it for SD and SDXL"),
        "text_encoder_batch_size": ("one", "captions are encoded one batch at a time"),
        "config_file": ("one", "python -m tools.convert_preset makes a preset of that file"),
    }
)
_FINE_TUNING = "it is read for fine-tuning with a metadata file; name the file in dataset_config, as metadata_file"
_DEEPSPEED = "DeepSpeed is chosen by the launcher: accelerate config, then accelerate launch"
REFUSED: Mapping[str, tuple[Takes, str]] = MappingProxyType(
    {
        "base_weights": ("many", "merge these LoRAs into the base model first: python -m tools.merge_lora"),
        "base_weights_multiplier": ("many", "merge these LoRAs into the base model first: python -m tools.merge_lora"),
        "save_n_epoch_ratio": ("one", "write save_every_n_epochs"),
        "initial_epoch": ("one", "a state knows its step; name it in resume"),
        "initial_step": ("one", "a state knows its step; name it in resume"),
        "face_crop_aug_range": ("one", "faces are not looked for; random_crop crops at random places"),
        "resize_interpolation": ("one", "pictures are shrunk by area and enlarged by Lanczos, as sd-scripts does"),
        "dataset_class": ("one", "a data set of one's own cannot be given; describe it in dataset_config"),
        "debug_dataset": ("nothing", "it shows pictures and does not train; --dry-run prints what is in the data set"),
        "in_json": ("one", _FINE_TUNING),
        "dataset_repeats": ("one", _FINE_TUNING),
        "output_config": ("nothing", "it writes a TOML file and does not train; --dry-run prints the plan"),
        "deepspeed": ("nothing", _DEEPSPEED),
        "zero_stage": ("one", _DEEPSPEED),
        "offload_optimizer_device": ("one", _DEEPSPEED),
        "offload_optimizer_nvme_path": ("one", _DEEPSPEED),
        "offload_param_device": ("one", _DEEPSPEED),
        "offload_param_nvme_path": ("one", _DEEPSPEED),
        "zero3_init_flag": ("nothing", _DEEPSPEED),
        "zero3_save_16bit_model": ("nothing", _DEEPSPEED),
        "fp16_master_weights_and_gradients": ("nothing", _DEEPSPEED),
    }
)
LATE = (
    "network_args",
    "network_module",
    "network_train_unet_only",
    "network_train_text_encoder_only",
)  # others decide what they mean
LISTS = ("network_args", "text_encoder_lr")  # what takes several words and is no key of the kind Arguments


@dataclass
class Meaning:
    """What arguments ask for. Each of `keys` comes with the argument that gave it; `idle` says why one does nothing,
    `problems` what is wrong with one, `notes` what is understood in another way."""

    keys: dict[str, tuple[object, str]] = field(default_factory=dict)
    idle: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def put(self, argument: str, keys: Mapping[str, object]) -> None:
        self.keys |= {key: (value, argument) for key, value in keys.items()}


def known_arguments() -> Mapping[str, Takes]:
    """Every argument by its name, and how many words follow it on a command line."""
    keys = keys_of(LoraPreset)
    takes: dict[str, Takes] = {name: _takes(keys[name].annotation) for name in SAME if name in keys}
    takes |= {name: _takes(keys[key].annotation) for name, key in RENAMED.items()}
    takes |= dict.fromkeys(FLAGS, "nothing")
    takes |= {name: kind for table in (IDLE, REFUSED) for name, (kind, _) in table.items()}
    return {**takes, **dict.fromkeys(LISTS, "many"), "network_module": "one"}


def _takes(annotation: object) -> Takes:
    return "nothing" if annotation is Switch or annotation == Switch else "many" if annotation == Arguments else "one"


def read_words(words: Sequence[str]) -> tuple[dict[str, object], list[str]]:
    """The arguments of a command line, with a text, a list of texts or True, and what is wrong with them.

    Of an argument that is given twice the last one counts, as for sd-scripts. Arguments for other families of models
    are taken too, so that they can be named.
    """
    given: dict[str, object] = {}
    problems: list[str] = []
    takes = known_arguments()
    number = 0
    while number < len(words):
        word = words[number]
        end = number + 1
        while end < len(words) and not words[end].startswith("--"):
            end += 1
        following = list(words[number + 1 : end])
        number = end
        if not word.startswith("--"):
            problems.append(
                f"{shown(' '.join([word, *following]))} stands before the first argument; write --name value"
            )
            continue
        name, equals, value = word[2:].partition("=")
        if name not in takes and name not in other_models.KEYS:
            problems.append(_unknown(name, takes))
            continue
        values = [_unquoted(value), *following] if equals else following
        kind = takes.get(name) or ("one" if values else "nothing")
        problem = _wrong_number(name, kind, values)
        if problem:
            problems.append(problem)
        else:
            given[name] = True if kind == "nothing" else values if kind == "many" else values[0]
    return given, problems


def _wrong_number(name: str, kind: Takes, values: Sequence[str]) -> str:
    if kind == "nothing" and values:
        return f"--{name} takes no value; remove {shown(' '.join(values))}"
    if kind == "one" and len(values) != 1:
        found = "none" if not values else shown(" ".join(values))
        return f"--{name} takes one value, found {found}; put a value with blanks in quotes"
    return f"--{name} needs at least one value" if kind == "many" and not values else ""


def _unknown(name: str, known: Iterable[str]) -> str:
    hint = did_you_mean(f"--{name.replace('-', '_')}", [f"--{each}" for each in known])
    return f"--{name} is no argument of sd-scripts{hint}"


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text


def meaning_of(given: Mapping[str, object]) -> Meaning:
    """The keys that arguments stand for. A value is what `read_words` or a TOML file gives; False is not given."""
    meaning = Meaning()
    keys = keys_of(LoraPreset)
    for name, value in sorted(given.items(), key=lambda item: LATE.index(item[0]) if item[0] in LATE else -1):
        if value is False or value is None:
            continue
        if name in IDLE:
            meaning.idle[name] = IDLE[name][1]
        elif name in REFUSED:
            meaning.problems.append(f"--{name} is not supported: {REFUSED[name][1]}")
        elif name in FLAGS:
            meaning.put(name, FLAGS[name])
        elif name in SPECIAL:
            SPECIAL[name](meaning, value)
        elif (key := RENAMED.get(name, name)) in other_models.KEYS or key in keys:
            meaning.put(name, {key: _as_text(value) if isinstance(value, (list, tuple)) else value})
        else:
            meaning.problems.append(_unknown(name, known_arguments()))
    _choose_noise(meaning)
    return meaning


def _as_text(value: Sequence[object]) -> str:
    """Several words as the one text that the GUI has for them; two numbers are a size."""
    if value and all(isinstance(item, (int, float)) for item in value):
        return ",".join(map(str, value))
    quote = {word: "'" if '"' in word else '"' for word in map(str, value)}
    return " ".join(f"{quote[word]}{word}{quote[word]}" if " " in word else word for word in map(str, value))


def _text_encoder_rate(meaning: Meaning, value: object) -> None:
    rates = list(value) if isinstance(value, (list, tuple)) else [value]
    meaning.put("text_encoder_lr", {"text_encoder_lr": rates[0]} if rates else {})
    if len({str(rate) for rate in rates}) > 1:
        text = "is for all text encoders, as the first rate is in sd-scripts"
        meaning.notes.append(f"text_encoder_lr: {rates[0]} {text}")


def _network_arguments(meaning: Meaning, value: object) -> None:
    words = value if isinstance(value, (list, tuple)) else str(value).split()
    for word in words:
        name, equals, text = str(word).partition("=")
        if not equals:
            meaning.problems.append(f"--network_args: {shown(word)} is not of the form name=value")
        elif name in NETWORK_KEYS:
            meaning.put(f"network_args {name}", {NETWORK_KEYS[name]: _unquoted(text)})
        elif name == "full_matrix":
            wanted = text.casefold() in ("true", "1")
            meaning.put("network_args full_matrix", {"network_dim": FULL_MATRIX_DIM} if wanted else {})
        elif name != "algo" and WITHOUT.get(name) != text.casefold():
            hint = did_you_mean(name, [*NETWORK_KEYS, "algo"])
            meaning.problems.append(f"--network_args: {name} is no option of the layers here{hint}")
    algo = next((str(word).partition("=")[2] for word in words if str(word).startswith("algo=")), "")
    if algo:
        _network(meaning, "lycoris.kohya", _unquoted(algo))


def _network_module(meaning: Meaning, value: object) -> None:
    if "LoRA_type" not in meaning.keys:
        _network(meaning, str(value), "")


def _network(meaning: Meaning, module: str, algo: str) -> None:
    kind = lora_type(module, algo, has_convolutions="conv_dim" in meaning.keys)
    if kind:
        meaning.put("network_args algo" if algo else "network_module", {"LoRA_type": kind})
    else:
        named = f"--network_args: algo={algo}" if algo else f"--network_module {module}"
        meaning.problems.append(f"{named} is not supported; write a LoRA_type, such as LyCORIS/LoCon")


SPECIAL: Mapping[str, Callable[[Meaning, object], None]] = MappingProxyType(
    {
        "network_args": _network_arguments,
        "network_module": _network_module,
        "text_encoder_lr": _text_encoder_rate,
    }
)


def _choose_noise(meaning: Meaning) -> None:
    """The GUI's key that says which of two kinds of noise is meant; sd-scripts goes by what is given."""
    if "multires_noise_iterations" in meaning.keys:
        kind, argument = "Multires", "multires_noise_iterations"
    elif "noise_offset" in meaning.keys:
        kind, argument = "Original", "noise_offset"
    else:
        return
    if str(meaning.keys[argument][0]).strip() not in ("", "0", "0.0"):
        meaning.put(argument, {"noise_offset_type": kind})
