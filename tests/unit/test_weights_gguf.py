"""A GGUF's head: what a whole one says, and that nothing in a broken one is trusted."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier.weights import gguf as reader
from farrier.weights.gguf import Gguf, GgufError, read
from tests.unit.ggufs import LLAMA, gguf, pair

WHOLE = gguf()


def test_what_a_file_says() -> None:
    found = read(io.BytesIO(WHOLE))
    assert found == Gguf(3, "llama", 2, 2048, 8, 2, "Q4_K", len(WHOLE))
    assert read(io.BytesIO(gguf(version=2))).version == 2


def test_its_first_kilobytes_are_enough_for_what_stands_there() -> None:
    found = read(io.BytesIO(WHOLE[:1000]), whole=False)
    assert (found.architecture, found.context, found.quantisation, found.needs) == (
        *("llama", 2048, None, None),
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not begin with GGUF"),
        (b"<html>Not found</html>" * 10, "does not begin with GGUF"),
        (WHOLE[:10], "ends after 10 bytes"),
        (WHOLE[:300], "ends at byte 300, within its head"),
        (WHOLE[:5000], "ends at byte 5000, within its head"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1 of the format"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "1152921504606846976 values"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + b"\xff" * 8, "within its head"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("a", 1)[:-8] + b"\x63\0\0\0", "type 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + b"\0" * 8 + b"\xff" * 4, "dimensions"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + b"\0" * 8
            + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 40, 0, 0),
            "larger than any disk",
        ),
    ],
)  # fmt: skip
def test_what_no_engine_could_load(data: bytes, words: str) -> None:
    with pytest.raises(GgufError, match=words):
        read(io.BytesIO(data))


def test_a_value_of_another_type_is_none() -> None:
    odd = gguf({"general.architecture": "llama", "llama.context_length": "many"}, {})
    assert read(io.BytesIO(odd)).context is None
    assert read(io.BytesIO(gguf({"general.architecture": 7}, {}))).architecture is None


@given(st.integers(0, len(WHOLE)), st.binary(min_size=1, max_size=12))
def test_no_file_breaks_the_reader(at: int, put: bytes) -> None:
    data = WHOLE[:at] + put + WHOLE[at + len(put) :]
    for whole in (True, False):
        with suppress(GgufError):
            found = read(io.BytesIO(data), whole=whole)
            assert found.needs is None or found.needs > 0


@given(st.binary(max_size=400))
def test_no_bytes_behind_a_good_beginning_break_it(rest: bytes) -> None:
    data = b"GGUF" + struct.pack("<IQQ", 3, 5, 50) + rest
    with pytest.raises(GgufError):
        read(io.BytesIO(data))


def test_it_runs_by_itself_on_a_host(tmp_path: Path) -> None:
    file = tmp_path / "a b.gguf"
    program = Path(reader.__file__).read_bytes()
    for data, key in ((WHOLE, "architecture"), (WHOLE[:300], "problem")):
        file.write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-I", "-", file], input=program, capture_output=True, check=True
        )
        assert key in json.loads(done.stdout)
    assert LLAMA["llama.context_length"] == 2048
