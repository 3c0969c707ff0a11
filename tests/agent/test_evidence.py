"""Evidence is bounded in size and time, whole or absent, and without secrets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.engines import ENGINES
from farrier_agent.evidence import Bounds, EvidenceError, Subject, keep, stacks, write
from farrier_agent.evidence.redaction import redact, secrets_of
from farrier_agent.evidence.running import RunError, run
from farrier_agent.evidence.stacks import lines, processes
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.host import free_port
from tests.agent.standin import engine

UNIT = "engine-tiny.service"
PID = 4711
DEFAULT = Bounds()


class Host:
    """A /proc with one wedged engine, and programs of a host on PATH."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin, self.proc, self.kept = root / "bin", root / "proc", root / "evidence"
        self.bin.mkdir()
        for name in ("cat", "seq", "sleep", "yes"):
            (self.bin / name).symlink_to(shutil.which(name) or name)
        monkeypatch.setenv("PATH", str(self.bin))
        self.program("journalctl", 'echo "journalctl $*"')
        self.program("systemctl", 'echo "systemctl $*"')
        self.program("ss", 'echo "ss $*"')
        self.program("nvidia-smi", 'echo "Driver Version: 580"')
        self.process(
            PID, f"0::/system.slice/{UNIT}", environ=b"HF_TOKEN=very-secret-1\0HOME=/root\0"
        )
        self.process(4712, f"0::/system.slice/{UNIT}/worker")
        self.process(99, "0::/system.slice/engine-tiny.service-else")

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def process(self, pid: int, cgroup: str, environ: bytes = b"") -> None:
        task = self.proc / str(pid) / "task" / str(pid)
        task.mkdir(parents=True)
        (self.proc / str(pid) / "cgroup").write_text(cgroup + "\n")
        (self.proc / str(pid) / "environ").write_bytes(environ)
        status = "Name:\tVLLM::Worker\nState:\tD (disk sleep)\nPPid:\t1\nThreads:\t1\n"
        (self.proc / str(pid) / "status").write_text(status)
        (task / "comm").write_text("VLLM::Worker\n")
        (task / "wchan").write_text("nv_wait")
        (task / "stat").write_text(f"{pid} (VLLM) D) D 1 1 1")
        (task / "stack").write_text("[<0>] nvidia_ioctl+0x1\n[<0>] vfs_ioctl+0x2\n")

    def keep(
        self, port: int, bounds: Bounds = DEFAULT, more: Mapping[str, bytes] | None = None
    ) -> Path:
        subject = Subject("tiny", UNIT, PID, port, ENGINES["vllm"], "wedged for 30 s")
        path = keep(self.kept, subject, more=more, bounds=bounds, proc=self.proc)
        return asyncio.run(path)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        found = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            top, _, name = member.name.partition("/")
            assert path.name == f"{top}.tar.gz"
            found[name] = file.read()
    return found


def manifest(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(contents(path)["manifest.json"])
    found["amiss"] = {one["name"]: one["amiss"] for one in found["pieces"]}
    return found


def test_a_bundle_has_what_a_person_would_look_at(host: Host) -> None:
    with engine() as (client, _):
        path = host.keep(client.port, more={"status.json": b"{}"})
    found = contents(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert f"--unit={UNIT}" in found["journal.txt"].decode()
    assert b"--dmesg" in found["kernel.txt"]
    assert b"Driver Version: 580" in found["nvidia-smi.txt"]
    assert b"vllm:num_requests_running" in found["engine-metrics.txt"]
    assert b'"tiny"' in found["engine-v1-models.txt"]
    assert found["status.json"] == b"{}"
    assert str(client.port) in found["sockets.txt"].decode()
    assert b"2 processes" in found["stacks.txt"]
    assert b"nvidia_ioctl" in found["stacks.txt"]
    told = manifest(path)
    assert (told["why"], told["main_pid"]) == ("wedged for 30 s", PID)
    assert {name: amiss for name, amiss in told["amiss"].items() if amiss} == {}


def test_properties_that_hold_secrets_are_not_asked_for(host: Host) -> None:
    asked = contents(host.keep(free_port()))["unit.txt"].decode()
    assert "--property=" in asked
    for secret in ("Environment", "ExecStart=", "ExecStart,", "Credential"):
        assert secret not in asked


def test_what_hangs_floods_fails_or_is_missing_costs_the_others_nothing(host: Host) -> None:
    host.program("nvidia-smi", "echo begun; exec sleep 600")
    host.program("journalctl", "echo first; exec yes flood")
    host.program("systemctl", "echo cannot; exit 3")
    (host.bin / "ss").unlink()
    begun = time.monotonic()
    path = host.keep(free_port(), Bounds(seconds=3, piece=100_000))
    assert time.monotonic() - begun < 10
    found, amiss = contents(path), manifest(path)["amiss"]
    assert amiss["nvidia-smi.txt"] == "not done within 2.4 s"
    assert found["nvidia-smi.txt"] == b"begun\n"
    assert amiss["journal.txt"] == "not done within 2.4 s"
    assert len(found["journal.txt"]) <= 100_000
    assert amiss["unit.txt"] == "exit status 3"
    assert found["unit.txt"] == b"cannot\n"
    assert amiss["sockets.txt"] == "ss: No such file or directory"
    assert "nothing listens" in amiss["engine-health.txt"]
    assert amiss["stacks.txt"] is None
    assert path.stat().st_size < 200_000


def test_secrets_are_taken_out(host: Host) -> None:
    host.program("journalctl", "echo value very-secret-1; echo \"api_key='k1 k2', model=tiny\"")
    path = host.keep(free_port(), more={"note": b"Authorization: Bearer abc.def"})
    found = b"\n".join(contents(path).values())
    for secret in (b"very-secret-1", b"k1", b"abc.def"):
        assert secret not in found
    assert b"model=tiny" in found
    assert manifest(path)["secrets"] == "values of secret environment variables are taken out"


def test_an_environment_that_cannot_be_read_is_told(host: Host) -> None:
    (host.proc / str(PID) / "environ").unlink()
    assert "could not be read: exit status 1" in manifest(host.keep(free_port()))["secrets"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (b"HF_TOKEN=abc rest", b"HF_TOKEN=[redacted] rest"),
        (b"--api-key abc --port 1", b"--api-key [redacted] --port 1"),
        (b"--api-key=abc --port 1", b"--api-key=[redacted] --port 1"),
        (b'{"password": "a b", "x": 1}', b'{"password": [redacted], "x": 1}'),
        (b"'api_key': ['abc']", b"'api_key': [redacted]'abc']"),
        (b"Bearer abcdefgh12", b"Bearer [redacted]"),
        (b"authorization: abc\nnext", b"authorization: [redacted]\nnext"),
        (b"key sk-abcdefghijklmnopqrst.", b"key [redacted]."),
        (b"max_tokens=8, 128 tokens: fine", b"max_tokens=8, 128 tokens: fine"),
        (b"vllm:generation_tokens_total 5", b"vllm:generation_tokens_total 5"),
        (b"time per output token 5 ms", b"time per output token 5 ms"),
    ],
)
def test_what_is_written_like_a_secret(text: bytes, clean: bytes) -> None:
    assert redact(text) == clean


@given(st.text(min_size=8, max_size=40).filter(lambda text: "\0" not in text), st.binary())
def test_no_secret_value_survives(value: str, around: bytes) -> None:
    secret = value.encode("utf-8", "surrogatepass")
    secrets = secrets_of(b"PATH=/bin\0MY_API_KEY=" + secret + b"\0")
    assert secrets == {secret}
    clean = redact(around + secret + around + secret, secrets)
    # only what redaction itself writes may look like it
    assert secret not in clean.replace(b"[redacted]", b"") or secret in around + around


@pytest.mark.parametrize("line", [b"a" * 2_000_000, b"--" + b"a-" * 1_000_000, b" " * 2_000_000])
def test_a_line_of_megabytes_is_read_in_no_time(line: bytes) -> None:
    begun = time.monotonic()
    assert redact(line) == line
    assert time.monotonic() - begun < 5


def test_the_newest_files_stay_and_those_of_other_replicas(tmp_path: Path) -> None:
    other = write(tmp_path, "tiny-two", {}, {}, keep=2)
    (tmp_path / ".tiny-killed.new").write_bytes(b"half")
    made = [write(tmp_path, "tiny", {"n": b"%d" % n}, {}, keep=2) for n in range(5)]
    assert sorted(tmp_path.iterdir()) == sorted([other, *made[-2:]])


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceError, match=r"cannot be kept: .*file: "):
        write(tmp_path / "file", "tiny", {}, {}, keep=2)


def test_processes_are_found_by_their_control_group_v1_and_v2(host: Host) -> None:
    host.process(5000, f"3:pids:/x\n1:name=systemd:/system.slice/{UNIT}")
    assert processes(host.proc, UNIT) == [PID, 4712, 5000]
    text = list(lines(host.proc, UNIT))
    assert f"  thread {PID} (VLLM::Worker): D nv_wait" in text
    assert "    [<0>] nvidia_ioctl+0x1" in text


def test_a_process_that_ends_meanwhile_is_no_error(host: Host) -> None:
    for file in (host.proc / "4712" / "task" / "4712").iterdir():
        file.unlink()
    (host.proc / "4712" / "status").unlink()
    assert any("process 4712 (gone)" in line for line in lines(host.proc, UNIT))


def test_the_tail_is_kept_and_a_program_that_is_killed_leaves_no_child(host: Host) -> None:
    host.program("counts", "seq 1 100000")
    data, amiss = asyncio.run(run(("counts",), deadline=20, limit=1000, cut="tail"))
    assert (len(data), data[-7:], amiss) == (1000, b"100000\n", "cut to 1000 bytes (tail)")
    data, amiss = asyncio.run(run(("counts",), deadline=20, limit=4))
    assert (data, amiss) == (b"1\n2\n", "cut to 4 bytes (head)")
    host.program("sleeps", f"echo $$ > {host.bin}/pid; exec sleep 600")
    asyncio.run(run(("sleeps",), deadline=1, limit=10))
    with pytest.raises(ProcessLookupError):
        os.kill(int((host.bin / "pid").read_text()), 0)
    with pytest.raises(RunError, match="nothing-of-this-name"):
        asyncio.run(run(("nothing-of-this-name",), deadline=1, limit=10))


def test_what_is_not_permitted_is_said() -> None:
    """The agent has no capabilities: then the kernel's stacks are not for it."""
    with tempfile.TemporaryDirectory() as directory:
        proc = Path(directory)
        task = proc / "7" / "task" / "7"
        task.mkdir(parents=True)
        (proc / "7" / "cgroup").write_text(f"0::/system.slice/{UNIT}\n")
        (task / "comm").write_text("python\n")
        (task / "stack").write_text("[<0>] secret_function\n")
        (task / "stack").chmod(0)
        for path in (proc, proc / "7", proc / "7" / "task", task):
            path.chmod(0o755)
        source = Path(stacks.__file__).read_text()
        nobody = 65534 if os.geteuid() == 0 else None
        # the system's Python: nobody may not be allowed into root's
        command = ["/usr/bin/python3", "-I", "-", UNIT, directory]
        text = subprocess.check_output(command, input=source, text=True, user=nobody)
    assert "thread 7 (python)" in text
    assert "secret_function" not in text
    assert text.endswith("\nnot permitted to read: stack\n")
