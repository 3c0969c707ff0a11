import hashlib
import json
import math
import struct
from pathlib import Path

import pytest

from farrier.lab.tiny_model import VOCABULARY, write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(directory)
    return directory


def test_everybody_may_read_it_and_nobody_else_may_write(model: Path) -> None:
    assert model.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in model.iterdir()} == {0o644}


def test_the_weights_fill_their_file_and_have_the_shapes_of_the_configuration(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    raw = (model / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    assert length % 8 == 0
    header = json.loads(raw[8 : 8 + length])
    del header["__metadata__"]
    end = 0
    for tensor in header.values():
        begin, after = tensor["data_offsets"]
        assert begin == end
        assert after - begin == 4 * math.prod(tensor["shape"])
        end = after
    assert 8 + length + end == len(raw)
    hidden, size = config["hidden_size"], config["vocab_size"]
    assert header["lm_head.weight"]["shape"] == [size, hidden]
    assert header["model.embed_tokens.weight"]["shape"] == [size, hidden]
    assert config["num_attention_heads"] * config["head_dim"] == hidden
    down = header["model.layers.1.mlp.down_proj.weight"]["shape"]
    assert down == [hidden, config["intermediate_size"]]
    assert f"model.layers.{config['num_hidden_layers']}.mlp.down_proj.weight" not in header


def test_it_is_the_same_model_on_every_machine(model: Path) -> None:
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "337213fcb1f049d6b64950d700f5c8eb7f84c1947d28342f74b0fdd104c3e34b"


def test_the_vocabulary_has_each_token_once_and_every_byte(model: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(1024))
    assert len(set(VOCABULARY)) == 1024
    bytes_ = VOCABULARY[6 : 6 + 256]
    assert len(set(bytes_)) == 256
    assert all(len(symbol) == 1 and symbol.isprintable() for symbol in bytes_)
    for token in tokenizer["added_tokens"]:
        assert vocabulary[token["content"]] == token["id"]
