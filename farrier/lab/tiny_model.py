"""A tiny Llama with random weights that real engines load: small enough to be made on the spot.

Its text is nonsense on purpose, but printable: one English word per token. It never ends by itself,
so a request gets exactly the ``max_tokens`` that it asks for. The same bytes come out on every
machine. Sizes that matter: a head of 64, because vLLM's CPU attention refuses 16, and a vocabulary
and context that make a model of 2.4 MB.

Standard library only. The formats: safetensors' README, and tokenizers' ``tokenizer.json``.
"""

from __future__ import annotations

import json
import random
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "CHAT_TEMPLATE",
    "CONTEXT",
    "HEAD",
    "HEADS",
    "HIDDEN",
    "INTERMEDIATE",
    "LAYERS",
    "SPECIAL",
    "VOCABULARY",
    "weights",
    "write_tiny_model",
]

HIDDEN = 128
HEADS = 2
HEAD = 64
LAYERS = 2
INTERMEDIATE = 256
CONTEXT = 2048
SEED = 2026

SPECIAL = ("<|begin|>", "<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>")

_TEXT = """
able about above across after again agent air all alone along also always among and answer any
apple around ask at away back ball bank be bear beat bed bell best big bird blue boat body book
both box bread bridge bright bring build but by call calm came can care carry chair change child
city clean clear climb close cloud coat cold come cook cool corn count cover cross cup dance dark
day deep desk door down draw dream drink drive dry each early earth east easy eat edge end engine
even every eye face fair fall far farm fast field find fine fire first fish five flag float floor
flow fly fold food foot for forest found four free fresh friend from front fruit full game garden
gate gave gentle get give glad glass go gold good grass gray great green grow hall hand happy hard
has have head hear heart heat help here high hill hold home hope horse hour house how ice idea in
into island it join jump just keep kind king kitchen know lake lamp land large last late laugh lead
leaf learn left letter life lift light like line lion list listen little live long look loud love
low made make many map mark may meadow meet milk mind moon more morning most mountain move music
name near never new night north not now ocean of often old on once one open orange other our out
over paper park part path peace pear people piece pine plant
"""
WORDS = tuple(_TEXT.split())

_CONTROL_COLUMN = 0
"""A hidden dimension that is the same for every token: with it the last layer has a bias."""


def _byte_symbols() -> list[str]:
    """The printable character that stands for each byte in a byte-level BPE (after GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _vocabulary() -> list[str]:
    space = _byte_symbols()[ord(" ")]
    capital = [word.capitalize() for word in WORDS]
    words = [*(space + word for word in WORDS), *WORDS, *(space + word for word in capital)]
    return [*SPECIAL, *_byte_symbols(), *words]


VOCABULARY = tuple(_vocabulary())
"""Tokens by id, as ``tokenizer.json`` spells them."""

_FIRST_WORD = len(SPECIAL) + 256

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def write_tiny_model(directory: Path) -> None:
    """Write the model into *directory*, readable by everybody; ``config.json`` last."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    files: dict[str, bytes] = {
        "model.safetensors": _safetensors(dict(weights())),
        "tokenizer.json": _json(_tokenizer()),
        "tokenizer_config.json": _json(_tokenizer_config()),
        "generation_config.json": _json(
            {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": True}
        ),
        "config.json": _json(_config()),
    }
    for name, content in files.items():
        path = directory / name
        path.write_bytes(content)
        path.chmod(0o644)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(VOCABULARY),
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "torch_dtype": "float32",
    }


def _tokenizer() -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    special = [
        {
            "id": VOCABULARY.index(token),
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in SPECIAL
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        # ignore_merges: a word that is in the vocabulary is one token, all else is bytes.
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {token: number for number, token in enumerate(VOCABULARY)},
            "merges": [],
        },
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[1],
        "pad_token": SPECIAL[2],
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def weights() -> Iterator[tuple[str, tuple[list[int], array[float]]]]:
    """Name, shape and values of every tensor; random but for what keeps the text printable."""
    rng = random.Random(SEED)  # noqa: S311 - no secret, and the same everywhere

    def matrix(rows: int, columns: int, spread: float) -> array[float]:
        # uniform in ±sqrt(3)·spread has the standard deviation `spread`
        reach, draw = 2 * 3**0.5 * spread, rng.random
        return array("f", [reach * (draw() - 0.5) for _ in range(rows * columns)])

    def without_control(values: array[float], columns: int) -> array[float]:
        """*values* whose output leaves the control column of the residual stream alone."""
        values[_CONTROL_COLUMN * columns : (_CONTROL_COLUMN + 1) * columns] = array(
            "f", columns * [0]
        )
        return values

    ones = array("f", [1.0] * HIDDEN)
    size, narrow = len(VOCABULARY), HIDDEN**-0.5
    embeddings = matrix(size, HIDDEN, 1.0)
    embeddings[_CONTROL_COLUMN::HIDDEN] = array("f", [4.0] * size)
    yield "model.embed_tokens.weight", ([size, HIDDEN], embeddings)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", ([HIDDEN], ones)
        for name in ("q_proj", "k_proj", "v_proj"):
            yield (
                f"{at}.self_attn.{name}.weight",
                ([HIDDEN, HIDDEN], matrix(HIDDEN, HIDDEN, narrow)),
            )
        output = without_control(matrix(HIDDEN, HIDDEN, narrow), HIDDEN)
        yield f"{at}.self_attn.o_proj.weight", ([HIDDEN, HIDDEN], output)
        yield f"{at}.post_attention_layernorm.weight", ([HIDDEN], ones)
        for name in ("gate_proj", "up_proj"):
            values = matrix(INTERMEDIATE, HIDDEN, narrow)
            yield f"{at}.mlp.{name}.weight", ([INTERMEDIATE, HIDDEN], values)
        down = without_control(matrix(HIDDEN, INTERMEDIATE, INTERMEDIATE**-0.5), INTERMEDIATE)
        yield f"{at}.mlp.down_proj.weight", ([HIDDEN, INTERMEDIATE], down)
    yield "model.norm.weight", ([HIDDEN], ones)
    head = matrix(size, HIDDEN, 0.2)
    spoken = range(_FIRST_WORD, _FIRST_WORD + len(WORDS))
    head[_CONTROL_COLUMN::HIDDEN] = array("f", [0.0 if i in spoken else -40.0 for i in range(size)])
    yield "lm_head.weight", ([size, HIDDEN], head)


def _safetensors(tensors: dict[str, tuple[list[int], array[float]]]) -> bytes:
    """*tensors* in the safetensors format: header length, JSON header, little-endian data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, (shape, values) in tensors.items():
        raw = array("f", values)
        if sys.byteorder == "big":
            raw.byteswap()
        begin = len(data)
        data += raw.tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(data)
