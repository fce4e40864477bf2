"""Show what a LoRA, base model or upscaler is, and what its metadata say of its training.

python -m tools.show_metadata style.safetensors
python -m tools.show_metadata style.safetensors other.safetensors --json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.errors import Refusal
from tools import lora_tools

if TYPE_CHECKING:
    from lora_trainer.models.file_facts import FileFacts

TAGS = 20
WIDTH = 24  # of the names
LONGEST = 300  # letters of a value that nothing is known of
NONE = ("", "None")

# What is shown of a training, in this order: the words, and the keys of which the first that is there is taken.
TRAINING: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("title", ("modelspec.title", "ss_output_name")),
    ("description", ("modelspec.description",)),
    ("author", ("modelspec.author",)),
    ("license", ("modelspec.license",)),
    ("trigger", ("modelspec.trigger_phrase", "modelspec.tags")),
    ("comment", ("ss_training_comment",)),
    ("merged from", ("modelspec.merged_from",)),
    ("base model", ("ss_sd_model_name",)),
    ("base version", ("ss_base_model_version", "modelspec.architecture")),
    ("predicts", ("modelspec.prediction_type",)),
    ("network", ("ss_network_module",)),
    ("network arguments", ("ss_network_args",)),
    ("rank", ("ss_network_dim",)),
    ("alpha", ("ss_network_alpha",)),
    ("epoch", ("ss_epoch",)),
    ("epochs", ("ss_num_epochs",)),
    ("steps", ("ss_steps",)),
    ("batch size", ("ss_total_batch_size", "ss_batch_size_per_device")),
    ("images times repeats", ("ss_num_train_images",)),
    ("regularisation images", ("ss_num_reg_images",)),
    ("resolution", ("ss_resolution", "modelspec.resolution")),
    ("optimizer", ("ss_optimizer",)),
    ("learning rate", ("ss_learning_rate",)),
    ("of the UNet", ("ss_unet_lr",)),
    ("of the text encoders", ("ss_text_encoder_lr",)),
    ("schedule", ("ss_lr_scheduler",)),
    ("warm-up steps", ("ss_lr_warmup_steps",)),
    ("clip skip", ("ss_clip_skip",)),
    ("noise offset", ("ss_noise_offset",)),
    ("min SNR gamma", ("ss_min_snr_gamma",)),
    ("loss", ("ss_loss_type",)),
    ("precision of training", ("ss_mixed_precision",)),
    ("seed", ("ss_seed",)),
    ("made with", ("modelspec.implementation_version", "ss_sd_scripts_commit_hash")),
)
TIMES = {"started": "ss_training_started_at", "finished": "ss_training_finished_at"}
OWN_LINES = ("ss_bucket_info", "ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs", *TIMES.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 for a hash that is wrong, 2 for a file that is refused."""
    options = _parser().parse_args(arguments)
    try:
        return _show(options)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = lora_tools.parser_of("show_metadata", __doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".safetensors, .ckpt, .pt or .pth")
    parser.add_argument("--json", action="store_true", help="everything, for programs: a list with an object per file")
    parser.add_argument(
        "--tags", type=int, default=TAGS, metavar="N", help=f"the N most frequent tags (default {TAGS})"
    )
    parser.add_argument("--all", action="store_true", help="every entry of the metadata as it is")
    parser.add_argument("--no-hash", action="store_true", help="do not read the whole file to check its hashes")
    return parser


def _show(options: argparse.Namespace) -> int:
    from lora_trainer.models.file_facts import check_hashes, file_facts

    wrong = False
    objects = []
    for number, path in enumerate(options.files):
        facts = file_facts(path)
        hashes = {} if options.no_hash else check_hashes(path, facts.metadata)
        wrong |= not all(hashes.values())
        if options.json:
            objects.append(_object(facts, hashes))
        else:
            print("\n" * bool(number) + "\n".join(_lines(facts, hashes, options)))
    if options.json:
        print(json.dumps(objects, indent=2, ensure_ascii=False))
    return 1 if wrong else 0


# --------------------------------------------------------------------------------------------------------- for programs


def _object(facts: FileFacts, hashes: Mapping[str, bool]) -> dict[str, Any]:
    return {
        "file": str(facts.path),
        "kind": facts.kind,
        "bytes": facts.bytes,
        "tensors": facts.tensors,
        "precisions": facts.precisions,
        "layers": facts.layers,
        "ranks": {str(rank): count for rank, count in facts.ranks.items()},
        "hashes_right": hashes,
        "metadata": {key: _parsed(value) for key, value in sorted(facts.metadata.items())},
    }


def _parsed(value: str) -> Any:
    """JSON in a text as what it stands for; anything else, numbers too, stays the text that it is."""
    if not value.startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


# --------------------------------------------------------------------------------------------------------- for a person


def _lines(facts: FileFacts, hashes: Mapping[str, bool], options: argparse.Namespace) -> Iterator[str]:
    yield str(facts.path)
    yield _line("is", facts.kind or "weights of a kind that is not known here")
    precisions = ", ".join(f"{count} {word}" for word, count in facts.precisions.items())
    yield _line("size", f"{facts.bytes / 1e6:,.1f} MB, {facts.tensors} tensors ({precisions})")
    if facts.layers:
        yield _line("layers", ", ".join(f"{count} {kind}" for kind, count in facts.layers.items()))
    if facts.ranks:
        yield _line("ranks", ", ".join(f"{rank} ({count})" for rank, count in facts.ranks.items()))
    for key, right in hashes.items():
        yield _line(key, "right" if right else "WRONG: the file was changed after it was written")
    if not facts.metadata:
        yield _line("metadata", "none")
    elif options.all:
        yield from (_line(key, value) for key, value in sorted(facts.metadata.items()))
    else:
        yield from _training(facts.metadata, options.tags)


def _line(name: str, value: str) -> str:
    return f"  {name:<{WIDTH}}{value}"


def _training(metadata: Mapping[str, str], tags: int) -> Iterator[str]:
    for words, keys in TRAINING:
        if value := next((metadata[key] for key in keys if metadata.get(key, "") not in NONE), None):
            yield _line(words, value)
    for words, key in TIMES.items():
        if time := _time(metadata.get(key, "")):
            yield _line(words, time)
    yield from _folders("folder", metadata.get("ss_dataset_dirs", ""))
    yield from _folders("regularisation folder", metadata.get("ss_reg_dataset_dirs", ""))
    yield from _buckets(metadata.get("ss_bucket_info", ""))
    yield from _tags(metadata.get("ss_tag_frequency", ""), tags)
    known = {key for _, keys in TRAINING for key in keys} | {*OWN_LINES, "sshs_legacy_hash"}
    rest = [key for key in sorted(metadata) if key not in known and not key.startswith(("ss_", "sshs_", "modelspec."))]
    for key in rest:
        value = metadata[key]
        yield _line(key, value if len(value) <= LONGEST else f"{value[:LONGEST]}... ({len(value)} letters; --all)")
    more = sum(key.startswith(("ss_", "modelspec.")) and key not in known for key in metadata)
    if more:
        yield _line("further entries", f"{more} (--all shows them)")


def _time(text: str) -> str:
    try:
        return datetime.fromtimestamp(float(text), tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return ""


def _folders(words: str, text: str) -> Iterator[str]:
    folders = _parsed(text)
    for name, folder in folders.items() if isinstance(folders, dict) else ():
        if isinstance(folder, dict):
            yield _line(words, f"{name}: {folder.get('img_count', '?')} images, {folder.get('n_repeats', '?')} times")


def _buckets(text: str) -> Iterator[str]:
    info = _parsed(text)
    buckets = info.get("buckets") if isinstance(info, dict) else None
    if isinstance(buckets, dict) and buckets:
        counts = sorted(buckets.values(), key=lambda bucket: -bucket.get("count", 0))
        sizes = (f"{'x'.join(map(str, bucket.get('resolution', [])))} ({bucket.get('count')})" for bucket in counts)
        yield _line("buckets", ", ".join(sizes))


def _tags(text: str, most: int) -> Iterator[str]:
    frequencies = _parsed(text)
    if not isinstance(frequencies, dict) or most < 1:
        return
    counts: Counter[str] = Counter()
    for folder in frequencies.values():
        if isinstance(folder, dict):
            counts.update({tag.strip(): int(count) for tag, count in folder.items()})
    if counts:
        yield _line("tags", ", ".join(f"{tag} ({count})" for tag, count in counts.most_common(most)))
        if len(counts) > most:
            yield _line("", f"and {len(counts) - most} more (--tags {len(counts)})")


if __name__ == "__main__":
    sys.exit(main())
