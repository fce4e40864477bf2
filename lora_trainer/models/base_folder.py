"""Base models as diffusers folders: one subfolder per part, read and written without any network."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
from safetensors import SafetensorError
from transformers import CLIPTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from lora_trainer.atomic import write_text
from lora_trainer.errors import Refusal
from lora_trainer.models.base_configs import Kind, without_path
from lora_trainer.models.detect_folder import INDEX, WEIGHT_SUFFIXES, read_json
from lora_trainer.models.tensor_files import cast_to, write_tensor_file

M = TypeVar("M")  # a model of diffusers or transformers

_WHOLE_FILES = ("diffusion_pytorch_model", "model", "pytorch_model")
_HALF = "fp16"  # the only variant that is published, e.g. diffusion_pytorch_model.fp16.safetensors
_MAX_UNUSED_IDS = 512  # embeddings without a token, as rows are padded to a round number

_PIPELINES: dict[Kind, str] = {
    "sd15": "StableDiffusionPipeline",
    "sd21": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
}


def load_part(model: type[M], place: Path, dtype: torch.dtype) -> M:
    """Load one subfolder, frozen and in eval mode; half-precision files when there are no others. Raises Refusal."""
    half_only = not any(_is_whole(file.name) for file in place.iterdir())
    dtype_word = "dtype" if issubclass(model, PreTrainedModel) else "torch_dtype"
    try:
        with _no_progress_bars():
            loaded, report = model.from_pretrained(  # type: ignore[attr-defined]
                str(place),
                local_files_only=True,
                variant=_HALF if half_only else None,
                output_loading_info=True,
                **{dtype_word: dtype},
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise Refusal(f"{place}: this part cannot be loaded ({first_line}); copy it again") from error
    if missing := sorted(report["missing_keys"]):
        raise Refusal(f"{place}: {len(missing)} tensors are missing, for example {missing[0]}; copy the weights again")
    frozen: M = loaded.requires_grad_(False).eval()
    return frozen


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """transformers draws one per model, and they would be gone before anyone could read them."""
    were_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if were_on:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _is_whole(name: str) -> bool:
    """Whether a file is the weights, or the index of weights in several files, without a variant in its name."""
    stem, *rest = name.split(".")
    return stem in _WHOLE_FILES and f".{'.'.join(rest)}".removesuffix(".index.json") in WEIGHT_SUFFIXES


def load_tokenizer(place: Path, vocab_size: int) -> CLIPTokenizer | None:
    """The folder's tokenizer, or None without one. Raises Refusal when it does not fit the text encoder.

    transformers makes a tokenizer of two tokens out of an empty folder without a word, hence the look at its size.
    """
    if not place.is_dir():
        return None
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(str(place), local_files_only=True)
    if not 0 <= vocab_size - len(tokenizer) <= _MAX_UNUSED_IDS:
        raise Refusal(
            f"{place}: the tokenizer knows {len(tokenizer)} tokens and the text encoder {vocab_size}; "
            "copy the tokenizer's files again, or delete the folder to use CLIP's own"
        )
    return tokenizer


def read_configs(folder: Path, parts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The parts' configurations, and the noise schedule's where there is one."""
    files = {part: folder / part / "config.json" for part in parts}
    files["scheduler"] = folder / "scheduler" / "scheduler_config.json"
    return {part: read_json(file) for part, file in files.items() if file.is_file()}


def save_folder(
    folder: Path,
    kind: Kind,
    models: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write models and tokenizers (by part) so that diffusers' pipelines load the folder; the weights as they are, or
    in this format."""
    index: dict[str, Any] = {"_class_name": _PIPELINES[kind], "_diffusers_version": diffusers.__version__}
    for part, model in models.items():
        with _no_progress_bars():
            _save_part(model, folder / part, dtype)
        index[part] = [type(model).__module__.partition(".")[0], type(model).__name__]
        if isinstance(model, CLIPTokenizer):
            _save_vocabulary(model, folder / part)
        else:
            config = folder / part / "config.json"
            _forget_path(config)
            for weights in config.parent.glob("*.safetensors"):  # which safetensors makes readable for the owner alone
                weights.chmod(config.stat().st_mode)
    (folder / "scheduler").mkdir()
    write_text(folder / "scheduler" / "scheduler_config.json", _json(scheduler))
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    if kind != "sdxl":
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    write_text(folder / INDEX, _json(index))


def _save_part(part: Any, place: Path, dtype: torch.dtype | None) -> None:
    """A model or a tokenizer. Of a large model in another format no second copy is made."""
    is_text_encoder, is_model = isinstance(part, PreTrainedModel), hasattr(part, "dtype")
    tensors = part.state_dict() if is_model else {}
    kept = dtype is None or all(tensor.dtype == dtype for tensor in tensors.values() if tensor.is_floating_point())
    if dtype is None or kept:
        part.save_pretrained(str(place))
    elif is_text_encoder:
        cast = {name: cast_to(tensor, dtype) for name, tensor in tensors.items()}
        part.save_pretrained(str(place), state_dict=cast)
    else:
        part.save_config(place)
        write_tensor_file(
            place / f"{_WHOLE_FILES[0]}.safetensors",
            {name: tuple(tensor.shape) for name, tensor in tensors.items()},
            {name: dtype if tensor.is_floating_point() else tensor.dtype for name, tensor in tensors.items()},
            tensors.__getitem__,
            {"format": "pt"},
        )


def _forget_path(config: Path) -> None:
    write_text(config, _json(without_path(read_json(config))))


def _save_vocabulary(tokenizer: CLIPTokenizer, place: Path) -> None:
    """The two files that programs with transformers 4 read instead of tokenizer.json."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    write_text(place / "vocab.json", json.dumps(model["vocab"], ensure_ascii=False))
    merges = (" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])
    write_text(place / "merges.txt", "\n".join(("#version: 0.2", *merges)) + "\n")


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
