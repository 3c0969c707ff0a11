"""``python -m farrier_agent.evidence``, with a real process as the engine."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

from tests.agent.host import Host, replica, until
from tests.agent.standin import Client


def run(host: Host, name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "farrier_agent.evidence", name, "--why=it hangs"]
    command += [f"--config={host.config_path}", f"--directory={host.root / 'evidence'}"]
    return subprocess.run(
        command, env=host.environment(), capture_output=True, text=True, check=False, timeout=60
    )


def test_it_prints_where_the_evidence_is(host: Host) -> None:
    one = replica()
    host.configure(one)
    host.unit("engine-tiny.service", 1)
    host.engine(one.port, "tiny")
    until(Client(one.port).listens)
    done = run(host, "tiny")
    assert (done.returncode, done.stderr) == (0, "")
    path = Path(done.stdout.strip())
    assert path.parent == host.root / "evidence"
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"manifest.json", "stacks.txt", "engine-v1-models.txt"} <= names


def test_systemd_that_does_not_answer_leaves_the_rest(host: Host) -> None:
    host.configure(replica())
    host.systemd(fail="Failed to connect to bus")
    done = run(host, "tiny")
    assert done.returncode == 0
    with tarfile.open(done.stdout.strip()) as archive:
        assert any(name.endswith("/unit-error.txt") for name in archive.getnames())


def test_a_replica_that_does_not_exist_is_refused_with_those_that_do(host: Host) -> None:
    host.configure(replica())
    done = run(host, "large")
    assert done.returncode == 1
    assert done.stderr == "farrier-agent: no replica is named 'large' (this host has: tiny)\n"
