"""YAML files of people's settings, read without running what stands in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_trainer.errors import Refusal


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of the file; none for an empty one. Refusal where it cannot be read or holds something else."""
    import yaml  # type: ignore[import-untyped]  # only where a person has such a file

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Refusal(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", "") or str(error).splitlines()[0]
        raise Refusal(f"{path}{place}: is not YAML ({problem})") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Refusal(f"{path}: must hold keys and values, such as  main_prompt: a cat")
    return {str(key): value for key, value in found.items()}
