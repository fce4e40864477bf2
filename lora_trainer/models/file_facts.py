"""What a model file is and says about itself: LoRA, base model or upscaler; read without PyTorch where it can be."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.errors import Refusal
from lora_trainer.models.adapter_names import DORA, DOWN, WORDS, Shape, base_kind, kind_of_layer, split_name
from lora_trainer.models.checkpoint import KIND_WORDS
from lora_trainer.models.detect_tensors import detect_tensors
from lora_trainer.models.file_kinds import is_torch_file, known_stranger
from lora_trainer.models.safetensors_header import LENGTH_BYTES, read_header

HASH_KEYS = ("sshs_model_hash", "modelspec.hash_sha256")  # both are of the data behind the header
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class FileFacts:
    """One file. `ranks` counts the layers of a LoRA by rank; `kind` is None for a file of another sort."""

    path: Path
    kind: str | None
    bytes: int
    tensors: int
    precisions: Mapping[str, int]  # tensors by number format
    layers: Mapping[str, int]  # of a LoRA, by kind
    ranks: Mapping[int, int]
    metadata: Mapping[str, str]


def file_facts(path: Path) -> FileFacts:
    """Look at a .safetensors file or a PyTorch file. Raises Refusal for anything else."""
    if path.is_dir():
        raise Refusal(f"{path} is a folder; give a file in it")
    if not path.is_file():
        raise Refusal(f"{path}: there is no such file; correct the path")
    if stranger := known_stranger(path):
        raise Refusal(f"{path}: this is {stranger}; give a file of weights")
    if is_torch_file(path):
        shapes, precisions, metadata = _of_torch_file(path)
    else:
        header = read_header(path)
        shapes, precisions, metadata = header.shapes, Counter(header.dtypes.values()), header.metadata
    layers, ranks = _layers(shapes)
    kind = _adapter_words(shapes, metadata) if layers else _other_words(path, shapes, metadata)
    return FileFacts(path, kind, path.stat().st_size, len(shapes), dict(precisions), layers, ranks, metadata)


def _of_torch_file(path: Path) -> tuple[Mapping[str, Shape], Counter[str], Mapping[str, str]]:
    from lora_trainer.models.state_files import read_state_file

    file = read_state_file(path)
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    words = (str(tensor.dtype).removeprefix("torch.") for tensor in file.tensors.values())
    return file.shapes, Counter(names.get(word, word) for word in words), file.metadata


def _layers(shapes: Mapping[str, Shape]) -> tuple[dict[str, int], dict[int, int]]:
    """The layers of a LoRA by kind and by rank; nothing where some tensors belong to no kind."""
    by_layer: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        layer, ending = split_name(name)
        by_layer.setdefault(layer, {})[ending] = shape
    kinds: Counter[str] = Counter()
    ranks: Counter[int] = Counter()
    for endings in by_layer.values():
        kind = kind_of_layer(endings, endings)
        if kind is None:
            return {}, {}
        kinds["DoRA" if kind == "lora" and DORA in endings else WORDS[kind]] += 1
        if rank := next((endings[end][0] for end in (DOWN, "hada_w1_b", "lokr_w2_b") if end in endings), 0):
            ranks[rank] += 1
    return dict(kinds.most_common()), dict(sorted(ranks.items()))


def _adapter_words(shapes: Mapping[str, Shape], metadata: Mapping[str, str]) -> str:
    kind = base_kind(shapes, metadata)
    return f"LoRA for {KIND_WORDS[kind]}" if kind else "LoRA"


def _other_words(path: Path, shapes: Mapping[str, Shape], metadata: Mapping[str, str]) -> str | None:
    if "scale" in metadata and "type" in metadata:  # what this package writes into upscalers
        return f"{metadata['scale']}x upscaler ({metadata['type']})"
    try:
        found = detect_tensors(path, shapes, metadata)
    except Refusal:
        return None
    prediction = f", predicts {found.prediction}" if found.prediction else ""
    return f"{KIND_WORDS[found.kind]} model{prediction}" if found.kind else None


def check_hashes(path: Path, metadata: Mapping[str, str]) -> dict[str, bool]:
    """For each hash among a .safetensors file's metadata whether it is right. Reads the whole file."""
    told = {key: metadata[key] for key in HASH_KEYS if metadata.get(key)}
    if not told or is_torch_file(path):
        return {}
    found = data_hash(path)
    return {key: value.removeprefix("0x").lower() == found for key, value in told.items()}


def data_hash(path: Path) -> str:
    """The SHA-256 of a .safetensors file's data, without its header."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(LENGTH_BYTES + int.from_bytes(file.read(LENGTH_BYTES), "little"))
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
