"""What makes a host unfit to be changed, from the lines that the host printed."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from farrier.converge.preflight import (
    HostFacts,
    HostPreflight,
    Listener,
    judge,
    parse,
    wanted_ports,
)
from farrier.spec import HostSpec, Model

TINY = Model("tiny", source="path:/srv/models/tiny", gpus=[0], port=8101)
SPEC = HostSpec("gpu01", groups=("gpu",), address="198.18.0.11", models=(TINY,))
FIT = HostFacts("debian 12", {"/": 9000, "/var": 9000}, (), {"/srv/models/tiny": "ok"})

SAID = """\
system debian 12
free 9000
free 700
model no-config.json /srv/models/half copied
model ok /srv/models/tiny
listen 8080 4711 session-3.scope python3
listen 8101 815 engine-tiny.service VLLM::Worker TP0
listen 22 0 -
""".splitlines()


def test_parse() -> None:
    facts = parse(SAID)
    assert facts.system == "debian 12"
    assert facts.free_mb == {"/": 9000, "/var": 700}
    assert facts.models == {"/srv/models/half copied": "no-config.json", "/srv/models/tiny": "ok"}
    assert facts.listeners == (
        Listener(8080, "python3", 4711, "session-3.scope"),
        Listener(8101, "VLLM::Worker TP0", 815, "engine-tiny.service"),
        Listener(22, "", 0, "-"),
    )


def test_the_script_on_a_real_machine(tmp_path: Path) -> None:
    """This machine's own answer: its system, its disks, a socket of ours, three directories."""
    whole, half = tmp_path / "it's whole", tmp_path / "half"
    whole.mkdir()
    half.mkdir()
    (whole / "config.json").write_text("{}")
    (half / "config.json").write_text("")
    paths = [str(whole), str(half), str(tmp_path / "absent")]
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = subprocess.run(
            ["sh", "-c", HostPreflight().command(paths)], capture_output=True, text=True, check=True
        )
        port = server.getsockname()[1]
    facts = parse(done.stdout.splitlines())
    assert list(facts.models.values()) == ["ok", "no-config.json", "no-directory"]
    assert facts.free_mb.keys() == {"/", "/var"}
    assert facts.system
    (ours,) = [listener for listener in facts.listeners if listener.port == port]
    assert ours.pid == os.getpid()


def test_a_fit_host_has_no_problem() -> None:
    assert list(judge(FIT, SPEC)) == []


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (replace(FIT, system="fedora 43"), ["fedora 43", "debian 12"]),
        (replace(FIT, system=""), ["unknown system"]),
        (replace(FIT, free_mb={"/": 12, "/var": 9000}), ["/ has 12 MB free", "df -h /"]),
        (replace(FIT, free_mb={"/": 9000, "/var": 0}), ["/var has 0 MB free", "df -h /var"]),
        (
            replace(FIT, models={"/srv/models/tiny": "no-directory"}),
            ["tiny", "does not exist", "rsync", "gpu01"],
        ),
        (
            replace(FIT, models={"/srv/models/tiny": "no-config.json"}),
            ["tiny", "no config.json", "source="],
        ),
        (
            replace(FIT, listeners=(Listener(8101, "python3", 7, "session-3.scope"),)),
            ["8101", "engine-tiny.service", "python3", "pid 7", "session-3.scope"],
        ),
        (replace(FIT, listeners=(Listener(9100, "java", 7, "x.service"),)), ["9100", "x.service"]),
    ],
)
def test_each_reason_is_told_with_its_repair(facts: HostFacts, told: list[str]) -> None:
    (problem,) = judge(facts, SPEC)
    assert [words for words in told if words not in problem] == []


def test_every_reason_is_told_at_once() -> None:
    facts = HostFacts(
        "fedora 43",
        {"/": 1, "/var": 1},
        (Listener(8080, "caddy", 7, "caddy.service"),),
        {"/srv/models/tiny": "no-directory"},
    )
    assert len(list(judge(facts, SPEC))) == 5


def test_own_units_may_listen_where_they_are_meant_to() -> None:
    ours = tuple(Listener(port, "x", 7, unit) for port, unit in wanted_ports(SPEC).items())
    assert list(judge(replace(FIT, listeners=ours), SPEC)) == []
    strangers = (Listener(22, "sshd", 1, "ssh.service"), Listener(3000, "node", 2, "-"))
    assert list(judge(replace(FIT, listeners=strangers), SPEC)) == []


def test_the_ports_of_a_host() -> None:
    assert wanted_ports(SPEC) == {
        8080: "nginx.service",
        8101: "engine-tiny.service",
        9100: "prometheus-node-exporter.service",
        9810: "farrier-agent.service",
    }
    monitor = HostSpec("gw01", groups=("monitor",), agent_port=9811)
    assert wanted_ports(monitor) == {
        9090: "prometheus.service",
        9100: "prometheus-node-exporter.service",
        9811: "farrier-agent.service",
    }
    # Its role installs nginx whether or not the host serves something yet.
    assert wanted_ports(HostSpec("gpu02", groups=("gpu",)))[8080] == "nginx.service"
