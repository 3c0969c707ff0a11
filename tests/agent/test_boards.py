"""What is true of a board without any host: names, nvidia-smi's words, programs, the form."""

from __future__ import annotations

from pathlib import Path

import pytest
from farrier_agent.boards.naming import meant
from farrier_agent.boards.returning import board_words
from farrier_agent.boards.smi import UnsafeError, program, sections
from hypothesis import given
from hypothesis import strategies as st

A, B = "GPU-1a2b0000-0000-4000-8000-000000000000", "GPU-1a9c0000-0000-4000-8000-000000000000"
GPUS = [(0, A), (1, B)]


@pytest.mark.parametrize(
    ("word", "uuid"),
    [("0", A), ("1", B), (A, A), (B.lower(), B), ("GPU-1a9", B), ("1a2", A), ("1A9C", B)],
)
def test_a_gpu_is_meant_by_index_uuid_or_its_beginning(word: str, uuid: str) -> None:
    assert meant(word, GPUS) == uuid


@pytest.mark.parametrize(
    ("word", "said"),
    [("7", "no GPU is named 7"), ("1a", "2 GPUs begin with 1a"), ("", "no GPU is named  ")],
)
def test_what_means_none_or_two_is_refused_with_those_there_are(word: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as wrong:
        meant(word, GPUS)
    assert f"0 ({A}), 1 ({B})" in str(wrong.value)


def test_nvidia_smi_is_read_by_gpu_and_what_is_not_there_is_absent() -> None:
    text = f"""
==============NVSMI LOG==============
Attached GPUs                             : 2
GPU 00000000:18:00.0
    Product Name                          : NVIDIA H200
    GPU UUID                              : {A}
    FRU Part Number                       : N/A
    PCI
        Bus Id                            : 00000000:18:00.0
GPU 00000000:20:00.0
    GPU UUID                              : {B}
    Board Part Number                     : 692-1
"""
    found = sections(text)
    assert found[A] == {"Product Name": "NVIDIA H200", "GPU UUID": A}
    assert found[B]["Board Part Number"] == "692-1"


@given(st.text())
def test_any_text_of_nvidia_smi_is_read(text: str) -> None:
    sections(text)


def test_a_program_that_others_could_have_written_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    tmp_path.chmod(0o755)
    assert program("nvidia-smi") == str(tmp_path / "nvidia-smi")
    for path, mode in ((tmp_path / "nvidia-smi", 0o757), (tmp_path, 0o1777)):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(UnsafeError, match="written by others than root"):
            program("nvidia-smi")
        path.chmod(before)
    with pytest.raises(UnsafeError, match="dcgmi is not on this host"):
        program("dcgmi")


def test_the_form_says_what_is_not_known() -> None:
    words = board_words(None, {A: {"Serial Number": "12"}}, server="Maker Box, serial 7")
    assert words == (
        "GPU of this host: not known",
        "  serial: 12",
        "  part: not known",
        f"  uuid: {A}",
        "  vbios: not known",
        "  PCI address: not known",
        "server: Maker Box, serial 7",
    )
