"""Two hundred clients that connect to the agent and say nothing: everybody else is answered."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import ExitStack

from tests.roles.fleet import Fleet, until

CROWD = 200
HOLD = """
import socket, sys, time
held = []
for _ in range(200):
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(5)
    try:
        one.connect("/run/farrier/agent/control.sock")
    except OSError:
        break
    held.append(one)
print(len(held), flush=True)
sys.stdin.read()
"""


def resident(fleet: Fleet, host: str) -> float:
    """The agent's memory in MiB, of all its processes."""
    pages = fleet.root(
        host,
        "cat $(sed s,^,/proc/, /sys/fs/cgroup/system.slice/farrier-agent.service/cgroup.procs"
        " | sed s,$,/statm,)",
    )
    return sum(int(line.split()[1]) for line in pages.splitlines()) * 4096 / 2**20


def check(fleet: Fleet, host: str) -> str:
    """agent-check's answer, as HAProxy asks for it."""
    with socket.create_connection((fleet.addresses[host], 9811), timeout=5) as gateway:
        gateway.sendall(b"tiny\n")
        return b"".join(iter(lambda: gateway.recv(1024), b"")).decode()


def test_two_hundred_silent_clients_keep_nobody_from_an_answer(fleet: Fleet) -> None:
    host = "gpu02"
    before = resident(fleet, host)
    argv = ["ssh", "-F", str(fleet.lab.ssh_config), host, "sudo python3 -c", f"'{HOLD}'"]
    with ExitStack() as crowd:
        for port in (9810, 9811):
            for _ in range(CROWD):
                address = (fleet.addresses[host], port)
                crowd.enter_context(socket.create_connection(address, timeout=5))
        inside = crowd.enter_context(
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert inside.stdout is not None
        until(lambda: inside.stdout and inside.stdout.readline(), 30, "clients of the socket")
        for _ in range(5):
            began = time.monotonic()
            assert "farrier_" in fleet.metrics(host)
            assert fleet.ready(host)
            assert check(fleet, host) == "up ready 100%\n"
            assert time.monotonic() - began < 3
        said = fleet.root(host, "timeout 5 farrier-agent status")
        assert "tiny" in said
        assert resident(fleet, host) < before + 40
        assert inside.stdin is not None
        inside.stdin.close()
    assert fleet.unit(host, "farrier-agent", "NRestarts") == "0"
