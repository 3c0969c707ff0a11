"""The real needrestart after a real package's library was replaced: whom it restarts.

Three services use a library of the package zlib1g. apt installs it anew, which puts another file
in its place, and calls needrestart by its hook, in the mode in which it restarts by itself. What
stands in for an engine and for the agent is a sleep: needrestart knows a service by its unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.roles.converging import Converge, Run
from tests.roles.fleet import Fleet, until

HOST = "gpu01"
OURS = ("engine-standin", "farrier-standin")
FOREIGN = "unrelated-standin"
CONFIGURATION = "/etc/needrestart/conf.d/farrier.conf"
UNIT = """\
[Service]
Environment=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libz.so.1
ExecStart=/usr/bin/sleep infinity
"""


def with_base(converge: Converge, *words: str) -> Run:
    run = converge(
        "--data", "role=base", *words, deploy="tests/toolkits/deploy_role.py", limit=[HOST]
    )
    assert run.returncode == 0, run.last_words()
    return run


def services(hosts: Fleet) -> dict[str, str]:
    return {name: hosts.unit(HOST, name, "MainPID") for name in (*OURS, "nginx", FOREIGN)}


@pytest.fixture
def needrestart(hosts: Fleet, converge: Converge) -> Iterator[None]:
    """needrestart, nginx and three services, on a host that has the role base."""
    with_base(converge)
    install = "env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y install"
    hosts.root(HOST, f"apt-get -q update && {install} --no-install-recommends needrestart nginx")
    for name in (*OURS, FOREIGN):
        hosts.put(HOST, f"/etc/systemd/system/{name}.service", UNIT)
    every = " ".join((*OURS, "nginx", FOREIGN))
    hosts.root(HOST, f"systemctl daemon-reload && systemctl restart {every}")
    yield
    units = " ".join(f"/etc/systemd/system/{name}.service" for name in (*OURS, FOREIGN))
    hosts.root(
        HOST,
        f"systemctl stop {every}; rm {units}; systemctl daemon-reload;"
        " DEBIAN_FRONTEND=noninteractive apt-get -q -y purge needrestart nginx 'nginx-*'",
    )


def uses_replaced_library(hosts: Fleet, pid: str) -> bool:
    return "libz.so" in hosts.root(HOST, f"grep deleted /proc/{pid}/maps", check=False)


def test_needrestart_restarts_others_and_names_ours(hosts: Fleet, needrestart: None) -> None:
    before = services(hosts)
    for name in (*OURS, FOREIGN):  # a service counts as started before its program is loaded
        loaded = f"grep -c libz /proc/{before[name]}/maps"
        until(partial(hosts.root, HOST, loaded, check=False), 10, f"{name} has loaded libz")
    said = hosts.root(
        HOST,
        "env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a"
        " apt-get -q -y install --reinstall zlib1g 2>&1",
    )
    after = services(hosts)
    assert after[FOREIGN] not in {"0", before[FOREIGN]}, said
    assert not uses_replaced_library(hosts, after[FOREIGN])
    for name in (*OURS, "nginx"):
        assert after[name] == before[name], said
        assert uses_replaced_library(hosts, after[name])
    deferred = said.partition("deferred:")[2]
    for name in (*OURS, "nginx"):
        assert f"systemctl restart {name}.service" in deferred, said


def test_without_the_configuration_it_restarts_an_engine(hosts: Fleet, needrestart: None) -> None:
    """Else the test above would show nothing."""
    hosts.root(HOST, f"mv {CONFIGURATION} /root/kept")
    try:
        before = services(hosts)
        reinstall = "apt-get -q -y install --reinstall zlib1g"
        hosts.root(HOST, f"env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a {reinstall}")
        after = services(hosts)
    finally:
        hosts.root(HOST, f"mv /root/kept {CONFIGURATION}")
    assert [name for name in before if after[name] == before[name]] == []


def test_the_configuration_comes_and_goes_with_the_role(hosts: Fleet, converge: Converge) -> None:
    """On a host that has no needrestart."""
    with_base(converge)
    assert with_base(converge).changed(HOST) == []
    assert "engine-" in hosts.ssh(HOST, f"cat {CONFIGURATION}")
    with_base(converge, "--data", "removed=true")
    assert hosts.ssh(HOST, "ls -d /etc/needrestart 2>/dev/null", check=False) == ""
    assert with_base(converge, "--data", "removed=true").changed(HOST) == []
