"""The gates as files: what nginx looks for, and what no other program can make of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from farrier_agent.gate import Gates


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    (tmp_path / "open").mkdir()
    return Gates(tmp_path / "open")


def test_a_gate_is_an_empty_file_that_others_can_see(gates: Gates) -> None:
    assert gates.is_open("tiny") is False
    assert gates.open("tiny") is True
    assert gates.is_open("tiny") is True
    assert gates.path("tiny").read_bytes() == b""
    assert gates.path("tiny").stat().st_mode & 0o444 == 0o444
    assert gates.open("tiny") is False
    gates.close("tiny")
    gates.close("tiny")
    assert gates.is_open("tiny") is False


def test_a_gate_is_never_opened_through_a_link(gates: Gates, tmp_path: Path) -> None:
    gates.path("tiny").symlink_to(tmp_path / "elsewhere")
    assert gates.open("tiny") is False
    assert not (tmp_path / "elsewhere").exists()


def test_a_gate_below_something_that_is_no_directory_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "open").write_text("")
    assert Gates(tmp_path / "open").is_open("tiny") is None
