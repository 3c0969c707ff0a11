"""The tiny model as one GGUF file that llama.cpp and Ollama load: the same weights and vocabulary.

``python -m farrier.lab.tiny_gguf FILE`` writes it. 2.5 MB of F32, tokenizer and chat template
included. It says other nonsense than the safetensors do: the halves of a head that are rotated are
interleaved here, and random weights need no conversion for that.

Standard library only. The format: ggml's docs/gguf.md; the names: gguf-py's constants.py.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from farrier.lab import tiny_model as tiny

__all__ = ["tiny_gguf"]

ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _TEXT, _ARRAY = 4, 5, 6, 7, 8, 9
_F32 = 0
_NORMAL, _CONTROL = 1, 3
"""Types of tokens (llama.h): of text, and of the conversation's form."""

Value = bool | int | float | str | Sequence[str] | Sequence[int]

_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tiny_gguf() -> bytes:
    """The whole file; the same bytes on every machine."""
    values = _values()
    tensors = [(_tensor_name(name), *rest) for name, rest in tiny.weights()]
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)))
    for name, value in values.items():
        head += _text(name) + _typed(value)
    data = bytearray()
    for name, shape, numbers in tensors:
        # its first dimension is the one whose numbers lie side by side
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += struct.pack("<IQ", _F32, len(data))
        data += _padded(_little_endian(numbers))
    return bytes(_padded(head) + data)


def _values() -> Mapping[str, Value]:
    vocabulary, special = tiny.VOCABULARY, tiny.SPECIAL
    return {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.alignment": ALIGNMENT,
        "llama.vocab_size": len(vocabulary),
        "llama.context_length": tiny.CONTEXT,
        "llama.embedding_length": tiny.HIDDEN,
        "llama.feed_forward_length": tiny.INTERMEDIATE,
        "llama.block_count": tiny.LAYERS,
        "llama.attention.head_count": tiny.HEADS,
        "llama.attention.head_count_kv": tiny.HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": tiny.HEAD,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",  # byte-level BPE
        "tokenizer.ggml.pre": "llama-bpe",  # a word that is in the vocabulary is one token
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": [
            _CONTROL if token in special else _NORMAL for token in vocabulary
        ],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": tiny.CHAT_TEMPLATE,
    }


def _tensor_name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    number, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{_LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Value) -> bytes:
    if isinstance(value, bool):  # before int, which it is, too
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", _TEXT) + _text(value)
    return b"".join(_array(value))


def _array(values: Sequence[str] | Sequence[int]) -> Iterator[bytes]:
    numbers = [value for value in values if isinstance(value, int)]
    yield struct.pack("<IIQ", _ARRAY, _INT32 if numbers else _TEXT, len(values))
    yield struct.pack(f"<{len(numbers)}i", *numbers)
    yield from (_text(value) for value in values if isinstance(value, str))


def _little_endian(values: array[float]) -> bytearray:
    raw = array("f", values)
    if sys.byteorder == "big":
        raw.byteswap()
    return bytearray(raw.tobytes())


def _padded(data: bytearray) -> bytearray:
    return data + bytes(-len(data) % ALIGNMENT)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(tiny_gguf())
