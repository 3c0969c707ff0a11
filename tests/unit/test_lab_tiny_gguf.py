"""The tiny model as a GGUF: whole, the same everywhere, and with the tensors of its head."""

from __future__ import annotations

import hashlib
import io
import re
import struct

import pytest

from farrier.lab import tiny_gguf as maker
from farrier.lab import tiny_model as tiny
from farrier.lab.tiny_gguf import tiny_gguf
from farrier.weights.gguf import Gguf, GgufError, read


@pytest.fixture(scope="module")
def whole() -> bytes:
    return tiny_gguf()


def test_its_head_says_what_the_model_is(whole: bytes) -> None:
    size = len(whole)
    assert read(io.BytesIO(whole)) == Gguf(3, "llama", 2, 2048, 2, 2, "F32", size)
    assert size < 3_000_000


def test_a_head_that_is_cut_is_noticed(whole: bytes) -> None:
    with pytest.raises(GgufError, match="within its head"):
        read(io.BytesIO(whole[:10_000]))


def test_it_has_each_tensor_of_a_llama_once(whole: bytes) -> None:
    names = re.findall(rb"(?:token_embd|output|output_norm|blk\.\d\.[a-z_]+)\.weight", whole)
    layer = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"]
    layer += ["ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
    wanted = [f"blk.{number}.{name}.weight" for number in range(tiny.LAYERS) for name in layer]
    wanted += ["token_embd.weight", "output_norm.weight", "output.weight"]
    assert sorted(name.decode() for name in names) == sorted(wanted)


def test_its_weights_are_those_of_the_safetensors(whole: bytes) -> None:
    *_, (name, (shape, numbers)) = tiny.weights()
    assert (name, shape) == ("lm_head.weight", [len(tiny.VOCABULARY), tiny.HIDDEN])
    # little-endian, and 512 kB: no padding behind it
    assert whole.endswith(struct.pack(f"<{len(numbers)}f", *numbers))


def test_it_is_the_same_file_on_every_machine(whole: bytes) -> None:
    assert (
        hashlib.sha256(whole).hexdigest()
        == "92e3d60231fad1eb8f1ed76d78e44a405acc4d0cbeed788921dc36c82e145c7a"
    )


def test_the_types_of_its_values() -> None:
    assert maker._typed(True) == struct.pack("<IB", 7, 1)
    assert maker._typed(7) == struct.pack("<II", 4, 7)
    assert maker._typed([1, -1]) == struct.pack("<IIQii", 9, 5, 2, 1, -1)
    assert maker._typed(["a"]) == struct.pack("<IIQQ", 9, 8, 1, 1) + b"a"
    assert maker._typed([]) == struct.pack("<IIQ", 9, 8, 0)
