"""GGUF files made on the spot: small, whole, and as the format says."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

Value = int | str | Sequence[str]


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(name: str, value: Value) -> bytes:
    if isinstance(value, int):
        return text(name) + struct.pack("<II", 4, value)
    if isinstance(value, str):
        return text(name) + struct.pack("<I", 8) + text(value)
    return text(name) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))


LLAMA: Mapping[str, Value] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 2048,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "tokenizer.chat_template": "{{ " + "x" * 4000,
    "tokenizer.ggml.tokens": [f"token{number}" for number in range(500)],
}
TENSORS: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "token_embd.weight": (12, (256, 500)),
    "output_norm.weight": (0, (256,)),
}


def gguf(
    values: Mapping[str, Value] = LLAMA,
    tensors: Mapping[str, tuple[int, tuple[int, ...]]] = TENSORS,
    *,
    version: int = 3,
) -> bytes:
    """A whole file; its tensors are zeros of types 0 (F32) and 12 (Q4_K)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    head += b"".join(pair(name, value) for name, value in values.items())
    offset = 0
    for name, (kind, shape) in tensors.items():
        count = 1
        for size in shape:
            count *= size
        head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", kind, offset)
        offset += -(-(count // 256 * 144 if kind == 12 else count * 4) // 32) * 32
    return head + b"\0" * (-len(head) % 32) + b"\0" * offset
