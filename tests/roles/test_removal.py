"""deploys/remove.py: what it takes away, what it refuses, and that a converge brings it back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, until

HOST = "gpu03"
ROLES = [
    *("agent", "alertmanager", "base", "cuda_toolkit", "engine", "gateway", "grafana"),
    *("llama_cpp", "nginx", "node_exporter", "nvidia_container_toolkit", "nvidia_driver"),
    *("ollama", "podman", "prometheus", "transformers", "vllm"),
]


def _answers(fleet: Fleet, host: str, port: int) -> bool:
    try:
        return fleet.request(host, "/-/ready", port=port).status in {200, 503}  # it may still load
    except ConnectionError:
        return False


@pytest.fixture
def afterwards(fleet: Fleet, converge: Converge) -> Iterator[None]:
    """Whatever a test removed is there again after it."""
    yield
    run = converge()
    assert run.returncode == 0, run.last_words()


@pytest.mark.parametrize("data", [[], ["--data", "role=engines"]], ids=["none", "unknown"])
def test_without_a_role_that_there_is_nothing_is_removed(
    fleet: Fleet, converge: Converge, data: list[str]
) -> None:
    run = converge(*data, deploy="deploys/remove.py")
    assert run.returncode == 1
    assert run.operations == []
    assert "nothing was changed" in run.stderr
    assert f"Roles: {', '.join(ROLES)}, and all" in run.stderr
    assert "deploys/remove.py --data role=NAME" in run.stderr
    assert "Traceback" not in run.stderr
    assert fleet.gate(HOST)


def test_everything_is_removed_and_a_converge_brings_it_back(
    fleet: Fleet, converge: Converge
) -> None:
    run = converge("--data", "role=all", deploy="deploys/remove.py", limit=[HOST])
    assert run.returncode == 0, run.last_words()
    assert "removing engine waits until what tiny serves has ended" in run.stderr
    assert run.hosts == {HOST}
    paths = (
        "/opt/farrier /etc/farrier /var/lib/farrier /run/farrier /usr/local/bin/farrier-agent"
        " /etc/nginx/farrier /etc/nginx/conf.d/farrier.conf /etc/systemd/system/engine-*"
        " /etc/systemd/system/farrier-* /etc/sysusers.d/farrier.conf /etc/tmpfiles.d/farrier.conf"
        " /etc/polkit-1/rules.d/50-farrier.rules"
    )
    assert fleet.root(HOST, f"ls -d {paths} 2>/dev/null", check=False) == ""
    ports = fleet.root(HOST, "ss -Hltn | awk '{print $4}'").split()
    assert {port.rpartition(":")[2] for port in ports} == {"22"}
    assert fleet.ssh(HOST, "systemctl --failed --no-legend") == ""
    assert fleet.ssh(HOST, "ls /srv/models") == "tiny\n"

    again = converge("--data", "role=all", deploy="deploys/remove.py", limit=[HOST])
    assert (again.returncode, again.changed(HOST)) == (0, []), again.last_words()

    back = converge(limit=[HOST])
    assert back.returncode == 0, back.last_words()
    assert fleet.chat(HOST).status == 200
    once_more = converge(limit=[HOST])
    assert (once_more.returncode, once_more.changed(HOST)) == (0, []), once_more.last_words()


def test_one_role_is_removed_from_the_hosts_that_have_it(
    fleet: Fleet, converge: Converge, afterwards: None
) -> None:
    run = converge("--data", "role=prometheus", deploy="deploys/remove.py")
    assert run.returncode == 0, run.last_words()
    assert run.hosts == {"gw01"}
    assert fleet.unit("gw01", "prometheus", "ActiveState") == "inactive"
    assert fleet.unit("gw01", "farrier-agent", "ActiveState") == "active"
    back = converge(limit=["gw01"])
    assert back.returncode == 0, back.last_words()
    until(lambda: _answers(fleet, "gw01", 9090), 60, "Prometheus listens again")
    assert fleet.unit("gw01", "prometheus", "UnitFileState") == "enabled"


def test_a_gateway_is_removed_and_a_converge_brings_it_back(
    fleet: Fleet, converge: Converge, afterwards: None
) -> None:
    run = converge("--data", "role=gateway", deploy="deploys/remove.py")
    assert run.returncode == 0, run.last_words()
    assert run.hosts == {"gw01"}
    assert fleet.unit("gw01", "haproxy", "ActiveState") == "inactive"
    paths = (
        "/etc/haproxy/haproxy.cfg /etc/haproxy/farrier /var/lib/haproxy/farrier.state"
        " /etc/systemd/system/haproxy.service.d/farrier.conf"
    )
    assert fleet.root("gw01", f"ls -d {paths} 2>/dev/null", check=False) == ""
    ports = fleet.root("gw01", "ss -Hltn | awk '{print $4}'").split()
    assert {port.rpartition(":")[2] for port in ports} & {"80", "443", "8405"} == set()
    assert fleet.ssh("gw01", "systemctl list-units --failed --no-legend 'haproxy*'") == ""
    again = converge("--data", "role=gateway", deploy="deploys/remove.py")
    assert (again.returncode, again.changed("gw01")) == (0, []), again.last_words()

    back = converge(limit=["gw01"])
    assert back.returncode == 0, back.last_words()
    assert fleet.unit("gw01", "haproxy", "UnitFileState") == "enabled"
    until(lambda: fleet.chat("gw01", port=80).status == 200, 30, "the gateway reaches a replica")
    once_more = converge(limit=["gw01"])
    assert (once_more.returncode, once_more.changed("gw01")) == (0, []), once_more.last_words()


def test_an_agent_that_is_removed_leaves_its_gates(
    fleet: Fleet, converge: Converge, afterwards: None
) -> None:
    run = converge("--data", "role=agent", deploy="deploys/remove.py", limit=["gpu02"])
    assert run.returncode == 0, run.last_words()
    assert fleet.ssh("gpu02", "ls /usr/local/bin/farrier-agent", check=False) == ""
    assert fleet.gate("gpu02")
    assert fleet.chat("gpu02").status == 200
