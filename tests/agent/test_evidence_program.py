"""``python -m farrier_agent.evidence``, with a real process as the engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.evidence.__main__ import LONGEST_WHY, WHY, read_why

from tests.agent.host import Host, replica, until
from tests.agent.standin import Client


def systemctl(host: Host, script: str) -> None:
    """A stand-in for the program: what it prints of the one property that it is asked for."""
    path = host.root / "bin" / "systemctl"
    path.write_text(f'#!/bin/sh\n[ "$2" = --property=MainPID ] || exit 0\n{script}\n')
    path.chmod(0o755)


def run(host: Host, name: str, *why: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "farrier_agent.evidence", name, *why]
    command += [f"--config={host.config_path}", f"--directory={host.root / 'evidence'}"]
    return subprocess.run(
        command, env=host.environment(), capture_output=True, text=True, check=False, timeout=60
    )


def pieces(done: subprocess.CompletedProcess[str]) -> dict[str, bytes]:
    """The files of the bundle, by name."""
    assert done.returncode == 0, done.stderr
    with tarfile.open(done.stdout.strip()) as archive:
        members = {name.partition("/")[2]: archive.extractfile(name) for name in archive.getnames()}
        return {name: file.read() for name, file in members.items() if file}


def manifest(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pieces(done)["manifest.json"])
    return found


def test_it_prints_where_the_evidence_is(host: Host) -> None:
    one = replica()
    host.configure(one)
    engine = host.engine(one.port, "tiny")
    systemctl(host, f"echo MainPID={engine.pid}")
    until(Client(one.port).listens)
    done = run(host, "tiny", "--why=it hangs")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).parent == host.root / "evidence"
    found = pieces(done)
    assert {"manifest.json", "stacks.txt", "engine-v1-models.txt"} <= found.keys()
    assert "unit-error.txt" not in found
    assert manifest(done)["why"] == "it hangs"
    assert manifest(done)["main_pid"] == engine.pid


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo Failed to connect to bus >&2; exit 1", "Failed to connect to bus"),
        ("echo MainPID=many", "no MainPID: MainPID=many"),
        ("exec sleep 60", "not done within"),
    ],
)
def test_systemd_that_does_not_answer_leaves_the_rest(host: Host, script: str, said: str) -> None:
    host.configure(replica())
    systemctl(host, script)
    done = run(host, "tiny")
    assert said in pieces(done)["unit-error.txt"].decode()
    assert manifest(done)["main_pid"] is None


def test_a_unit_without_a_process_is_no_error(host: Host) -> None:
    host.configure(replica())
    systemctl(host, "echo MainPID=0")
    done = run(host, "tiny")
    assert "unit-error.txt" not in pieces(done)
    assert manifest(done)["main_pid"] is None


def test_a_replica_that_does_not_exist_is_refused_with_those_that_do(host: Host) -> None:
    host.configure(replica())
    done = run(host, "large")
    assert done.returncode == 1
    assert done.stderr == "farrier-agent: no replica is named 'large' (this host has: tiny)\n"


def test_a_file_says_why(host: Host, tmp_path: Path) -> None:
    host.configure(replica())
    systemctl(host, "echo MainPID=0")
    path = tmp_path / "why"
    path.write_text("no progress for 25 s with 7 requests in flight\n")
    done = run(host, "tiny", f"--why-file={path}")
    assert manifest(done)["why"] == "no progress for 25 s with 7 requests in flight"
    absent = run(host, "tiny", f"--why-file={tmp_path / 'absent'}")
    assert manifest(absent)["why"] == WHY
    both = run(host, "tiny", f"--why-file={path}", "--why=x")
    assert both.returncode == 2


def _link(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("a secret of root's\n")
    path.symlink_to(target)


@pytest.mark.parametrize(
    "make",
    [_link, os.mkfifo, Path.mkdir, Path.touch, lambda path: path.write_bytes(b" \n\nsecond line")],
    ids=["link", "fifo", "directory", "empty", "blank"],
)
def test_what_is_no_reason_is_not_read(make: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "why"
    make(path)
    assert read_why(path) == WHY


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"it hangs", "it hangs"),
        (b"first\nsecond\n", "first"),
        (b"red \x1b[31m alert\x00", "red ?[31m alert?"),
        (b"\xff\xfe", "��"),
        ("grüße ✓".encode(), "grüße ✓"),
        (b"x" * 10_000_000, "x" * LONGEST_WHY),
    ],
)
def test_a_reason_is_one_printable_line(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "why"
    path.write_bytes(data)
    assert read_why(path) == why
