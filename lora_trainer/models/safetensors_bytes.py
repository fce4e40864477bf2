"""Safetensors files with canonical bytes: the same tensors and metadata always give the same file.

The library writes the metadata in the order of a hash table, which differs from call to call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

_LENGTH_BYTES = 8  # a little-endian integer before the JSON header
_ALIGNMENT_BYTES = 8


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The whole file: header with sorted names, then the data in the library's own order.

    Tensors must be contiguous and share no memory, as for `safetensors.torch.save`.
    """
    plain = memoryview(save(dict(tensors), dict(metadata)))
    header_bytes = int.from_bytes(plain[:_LENGTH_BYTES], "little")
    header = json.loads(bytes(plain[_LENGTH_BYTES : _LENGTH_BYTES + header_bytes]))
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return b"".join((len(text).to_bytes(_LENGTH_BYTES, "little"), text, plain[_LENGTH_BYTES + header_bytes :]))
