"""Properties of converged hosts: services, users, modes, and how far units are locked in."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import testinfra

from tests.roles.fleet import Fleet

HOSTS = ("gpu01", "gpu02", "gpu03", "gw01")
GPU_HOSTS = ("gpu01", "gpu02", "gpu03")
ENGINE_USERS = {"gpu01": "farrier-vllm", "gpu02": "farrier-engine", "gpu03": "farrier-engine"}
EVERYWHERE = ("farrier-agent", "prometheus-node-exporter", "ssh")

MOST_EXPOSED = 3.5
"""systemd-analyze's bound for our units; a unit without any setting has 9.6."""


@cache
def backend(config: str, host: str) -> Any:
    return testinfra.get_host(f"ssh://{host}", ssh_config=config, sudo=True)


@pytest.fixture
def on(fleet: Fleet, request: pytest.FixtureRequest) -> Any:
    """testinfra's view of the host that the test is parametrised with."""
    return backend(str(fleet.lab.ssh_config), request.getfixturevalue("host_name"))


@pytest.mark.parametrize("host_name", HOSTS)
def test_services_run_and_come_back_at_boot(on: Any, host_name: str) -> None:
    own = ("nginx", "engine-tiny") if host_name in GPU_HOSTS else ("prometheus", "haproxy")
    for name in (*EVERYWHERE, *own):
        service = on.service(name)
        assert (name, service.is_running, service.is_enabled) == (name, True, True)
    others = ("prometheus", "haproxy") if host_name in GPU_HOSTS else ("nginx", "engine-tiny")
    assert [name for name in others if on.service(name).is_running] == []
    # Debian's own may fail in a lab's boot
    ours = "'engine-*' 'farrier*' 'haproxy*' 'nginx*' 'prometheus*'"
    assert on.check_output(f"systemctl list-units --failed --plain --no-legend {ours}") == ""


FILES = {
    "/etc/farrier/agent.toml": ("root", "root", 0o644),
    "/etc/systemd/system/farrier-agent.service": ("root", "root", 0o644),
    "/run/farrier": ("root", "root", 0o755),
    "/run/farrier/open": ("farrier-agent", "farrier-agent", 0o755),
    "/run/farrier/started": ("root", "root", 0o755),
    "/run/farrier/agent": ("farrier-agent", "farrier-agent", 0o755),
    "/var/lib/farrier": ("root", "root", 0o755),
    "/opt/farrier": ("root", "root", 0o755),
}
SERVING = {
    "/etc/nginx/farrier": ("root", "root", 0o700),
    "/etc/nginx/farrier/keys.map": ("root", "root", 0o600),
    "/etc/nginx/conf.d/farrier.conf": ("root", "root", 0o644),
    "/etc/systemd/system/engine-tiny.service": ("root", "root", 0o644),
    "/run/farrier/started/tiny": ("root", "root", 0o644),
}
GATEWAY = {
    "/etc/haproxy/farrier": ("root", "root", 0o700),
    "/etc/haproxy/farrier/keys.map": ("root", "root", 0o600),
    "/etc/haproxy/farrier/tls.pem": ("root", "root", 0o600),
    "/etc/haproxy/haproxy.cfg": ("root", "root", 0o644),
}


@pytest.mark.parametrize("host_name", HOSTS)
def test_files_have_their_owner_and_mode(on: Any, host_name: str) -> None:
    expected = FILES | (SERVING if host_name in GPU_HOSTS else GATEWAY)
    if host_name in GPU_HOSTS:
        user = ENGINE_USERS[host_name]
        expected |= {"/var/lib/farrier/engines/tiny": (user, user, 0o700)}
    listed = on.check_output(f"stat -c '%n %U %G %a' {' '.join(expected)}")
    found = {
        path: (user, group, int(mode, 8))
        for path, user, group, mode in (line.split() for line in listed.splitlines())
    }
    assert found == expected


@pytest.mark.parametrize("host_name", HOSTS)
def test_programs_are_roots_and_nobody_elses(on: Any, host_name: str) -> None:
    trees = "/opt/farrier /etc/farrier /etc/nginx /var/lib/farrier /run/farrier"
    writable = on.check_output(f"find {trees} ! -type l -perm /o+w 2>/dev/null || true")
    # The agent is not of HAProxy's group: it asks the kernel of each datagram who sent it.
    assert writable == ("" if host_name in GPU_HOSTS else "/run/farrier/agent/gateway.sock")
    assert on.check_output("find /opt/farrier ! -user root -o ! -group root") == ""
    assert int(on.check_output("find /opt/farrier -type f | wc -l")) > 200


@pytest.mark.parametrize("host_name", HOSTS)
def test_nobody_but_root_reads_the_keys(fleet: Fleet, on: Any, host_name: str) -> None:
    serves = host_name in GPU_HOSTS
    keys = "/etc/nginx/farrier/keys.map" if serves else "/etc/haproxy/farrier/keys.map"
    own = (ENGINE_USERS[host_name], "www-data") if serves else ("haproxy",)
    for user in (*own, "farrier-agent", "farrier"):
        done = on.run(f"su -s /bin/sh {user} -c 'cat {keys}'")
        assert done.rc != 0
        assert "Permission denied" in done.stderr
    assert on.file(keys).contains("demo")
    # it has their hashes: no key is on a host; it comes by stdin, because sudo logs command lines
    trees = "/etc /var/lib/farrier /var/log /run /tmp /var/tmp /home"
    everywhere = f"grep -rlFs -f - {trees}; true"
    assert fleet.root(host_name, everywhere, stdin=fleet.key) == ""


@pytest.mark.parametrize("host_name", HOSTS)
def test_each_program_runs_as_its_own_user(on: Any, host_name: str) -> None:
    expected = {"farrier-agent": "farrier-agent"}
    if host_name in GPU_HOSTS:
        expected["engine-tiny"] = ENGINE_USERS[host_name]
    for unit, user in expected.items():
        main = on.check_output(f"systemctl show -P MainPID {unit}")
        assert on.check_output(f"ps -o user:32= -p {main}").strip() == user
        account = on.user(user)
        assert account.uid < 1000
        assert account.shell == "/usr/sbin/nologin"
        # whose control socket it gives to that group
        more = ["farrier"] if user == "farrier-agent" else []
        assert account.groups == [user, *more]
        capabilities = on.check_output(f"grep -E '^Cap(Prm|Eff|Amb|Bnd)' /proc/{main}/status")
        assert set(re.findall(r"\s([0-9a-f]+)", capabilities)) == {"0" * 16}
    if host_name in GPU_HOSTS:
        workers = on.check_output("ps -C nginx -o user=").split()
        assert sorted(set(workers)) == ["root", "www-data"]


@pytest.mark.parametrize("host_name", HOSTS)
def test_our_units_are_locked_in(on: Any, host_name: str) -> None:
    for unit in ("farrier-agent", "engine-tiny") if host_name in GPU_HOSTS else ("farrier-agent",):
        report = on.check_output(f"systemd-analyze security --no-pager {unit}.service")
        exposure = re.search(r"exposure level for .*: (\d+\.\d+)", report)
        assert exposure
        assert float(exposure[1]) <= MOST_EXPOSED, (unit, report)


@pytest.mark.parametrize("host_name", GPU_HOSTS)
def test_an_engine_reaches_nothing_but_its_own_state(on: Any, host_name: str) -> None:
    """Seen from inside the running unit's mount namespace, as its user."""
    main = on.check_output("systemctl show -P MainPID engine-tiny")
    inside = f"nsenter -t {main} -m -- setpriv --reuid {ENGINE_USERS[host_name]} --clear-groups "
    state = "/var/lib/farrier/engines/tiny"
    assert on.run(f"{inside} sh -c 'touch {state}/x && rm {state}/x'").rc == 0
    for path in ("/run/farrier/open/other", "/opt/farrier/x", "/srv/models/x", "/etc/x"):
        assert on.run(f"{inside} touch {path}").rc != 0, path
    assert on.run(f"{inside} ls /home/farrier").rc != 0
