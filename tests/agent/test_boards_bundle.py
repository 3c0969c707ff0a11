"""``farrier-agent gpu bundle``: the real program; NVIDIA's programs and NVML are stand-ins."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.cli import main

from tests.agent.host import UUIDS, Host, pci_address, replica, until
from tests.agent.replicas import needs_another_user
from tests.fakes.nvidia_tools import install

pytestmark = needs_another_user

SECRET = "hf_0123456789abcdefghij"


def bundled(host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    return host.verb(
        *("gpu", "bundle", f"--config={host.config_path}"),
        f"--directory={host.root / 'bundles'}",
        *words,
    )


def last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def pieces(path: str) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        members = {name.partition("/")[2]: archive.extractfile(name) for name in archive.getnames()}
        return {name: file.read() for name, file in members.items() if file}


@pytest.fixture
def cuda(host: Host) -> Host:
    install(host.root / "bin", state=host.nvml_state)
    host.configure(accelerator="cuda", proc_root="/proc")
    host.start()
    until(lambda: host.value("farrier_gpus") == 2)
    return host


def test_one_board_is_described_and_everything_is_there(cuda: Host) -> None:
    with cuda.kmsg.open("a") as log:
        log.write(f"NVRM: Xid (PCI:{pci_address(1)}): 64, pid=1, name=x, Row Remapper Error\n")
    until(lambda: cuda.value("farrier_gpu_xid_errors_total", uuid=UUIDS[1], xid="64") == 1)
    done = bundled(cuda, "1", "--json")
    assert done.returncode == 0, done.stderr
    final = last(done)
    path = Path(final["path"])
    assert path.name.startswith("gpu01-gpu1-")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    found = pieces(final["path"])
    words = found["return.txt"].decode()
    assert words.splitlines()[:4] == [
        "GPU 1 of gpu01: NVIDIA H200",
        "  serial: 1650000000000",
        "  part: 692-2G520-0280-001",
        f"  uuid: {UUIDS[1]}",
    ]
    assert UUIDS[0] not in words
    assert "  XID 64: 1 time, the last one 20" in words
    assert "xid-reset" in words
    assert tuple(words.splitlines()) == tuple(final["words"])
    assert gzip.decompress(found["nvidia-bug-report.log.gz"]).startswith(b"Start of NVIDIA")
    assert UUIDS[1] in found["nvidia-smi.txt"].decode()
    prints = json.loads(found["fingerprint.json"])
    assert prints["recorded"] is None
    assert len(prints["now"]["gpus"]) == 2
    manifest = json.loads(found["manifest.json"])
    entries = {one["name"]: one for one in manifest["pieces"]}
    assert manifest["gpu"] == UUIDS[1]
    assert entries["fingerprint.json"]["amiss"] == "recorded: none was recorded"
    assert all(one["what"] for one in entries.values())
    # what is not in it is said, with the reason
    absent = set(entries) - set(found)
    assert all(entries[name]["amiss"] or name.endswith((".txt", ".json")) for name in absent)


def test_a_secret_of_an_engine_is_in_no_piece(host: Host) -> None:
    install(host.root / "bin", state=host.nvml_state)
    one = replica()
    host.configure(one, accelerator="cuda", proc_root="/proc")
    sleeper = subprocess.Popen(["sleep", "60"], env={"HF_TOKEN": "quite-secret-words"})
    try:
        host.systemd.unit(
            one.unit,
            MainPID=sleeper.pid,
            ActiveState="active",
            SubState="running",
            InvocationID="1" * 32,
        )
        host.nvml(f"count 2\nbug-report.text env quite-secret-words --hf-token {SECRET} end")
        host.start()
        until(lambda: host.replica().unit_state)
        until(lambda: host.value("farrier_gpus") == 2)
        done = bundled(host, "--json")
    finally:
        sleeper.kill()
        sleeper.wait()
    assert done.returncode == 0, done.stderr
    found = pieces(last(done)["path"])
    report = gzip.decompress(found["nvidia-bug-report.log.gz"]).decode()
    assert "end" in report
    for text in (report, *(data.decode(errors="replace") for data in found.values())):
        assert "quite-secret-words" not in text
        assert SECRET not in text
    assert "environment could not be read" not in json.loads(found["manifest.json"])["secrets"]


def test_a_report_that_hangs_is_cut_off_and_said(cuda: Host) -> None:
    cuda.nvml("count 2\nbug-report.hang 1")
    done = bundled(cuda, "--bug-report-seconds=1", "--json")
    assert done.returncode == 0, done.stderr
    final = last(done)
    assert any(
        one.startswith("nvidia-bug-report.log.gz: not done within 1 s") for one in final["missing"]
    )
    report = pieces(final["path"])["nvidia-bug-report.log.gz"]
    assert gzip.decompress(report) == b"Start of NVIDIA bug report log file.\n\n"


def test_without_agent_driver_and_programs_there_still_is_a_bundle(host: Host) -> None:
    host.configure(accelerator="cuda")
    done = bundled(host, "--json")
    assert done.returncode == 0, done.stderr
    missing = last(done)["missing"]
    assert any(one.startswith("status.json: the agent does not answer") for one in missing)
    assert any("nvidia-bug-report.sh is not on this host" in one for one in missing)
    unknown = bundled(host, "GPU-77")
    assert unknown.returncode == 2
    assert "no GPU is named GPU-77 (known: none)" in unknown.stderr


def test_three_of_each_stay(cuda: Host) -> None:
    for _ in range(4):
        assert bundled(cuda, UUIDS[0][:-1] + "0", "--bug-report-seconds=0").returncode == 0
    assert bundled(cuda, "--bug-report-seconds=0").returncode == 0
    names = sorted(one.name for one in (cuda.root / "bundles").iterdir())
    assert [name.rpartition("-")[0] for name in names] == [*["gpu01-gpu0"] * 3, "gpu01-gpus"]


def test_it_is_for_root(capsys: pytest.CaptureFixture[str]) -> None:
    os.seteuid(65534)
    try:
        assert main(["gpu", "bundle"]) == 3
    finally:
        os.seteuid(0)
    assert "only root may read" in capsys.readouterr().err
