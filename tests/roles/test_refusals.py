"""What goes wrong on real hosts: told with host, cause and next step, and repaired by a good run.

Everything happens to gpu03; gpu02 is converged beside it and has to get through every time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.roles.converging import Converge, Run
from tests.roles.fleet import Fleet, until
from tests.roles.outcomes import (
    AGENTS,
    PAIR,
    VICTIM,
    WITNESS,
    agent_disk,
    assert_refused,
    assert_repaired,
    said,
    with_data,
    with_model,
)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Options of pyinfra: 2 seconds to connect, 6 until a silent connection is given up."""
    directory = tmp_path_factory.mktemp("group_data")
    (directory / "all.py").write_text(
        "from farrier.ssh import connect_kwargs\n"
        "ssh_paramiko_connect_kwargs = connect_kwargs(timeout=2, silence=6)\n"
    )
    return "--group-data", str(directory)


def test_a_host_that_cannot_be_reached(
    fleet: Fleet, converge: Converge, impatient: tuple[str, str]
) -> None:
    fleet.lab.link(VICTIM, up=False)
    try:
        run = converge(*impatient, limit=PAIR)
    finally:
        fleet.lab.link(VICTIM, up=True)
    assert_refused(run, "cannot connect", fleet.addresses[VICTIM], "next: ", "ping -c 3")
    assert run.hosts == {WITNESS}
    assert run.failed_hosts == (VICTIM,)
    assert_repaired(fleet)


def test_a_host_that_goes_away_in_the_middle(
    fleet: Fleet, converge: Converge, impatient: tuple[str, str]
) -> None:
    """Its cable is pulled while the run waits for its engine: no packet ever says so."""
    fleet.root(VICTIM, "systemctl stop engine-tiny")
    process = converge.start(*impatient, limit=[VICTIM])
    said(process, "waiting for replica tiny")
    fleet.lab.link(VICTIM, up=False)
    try:
        began = time.monotonic()
        _, rest = process.communicate(timeout=60)
    finally:
        fleet.lab.link(VICTIM, up=True)
    assert process.returncode == 1
    assert time.monotonic() - began < 30
    run = Run(process.returncode, "", rest, 0)
    assert_refused(run, "the connection was lost", "ping -c 3", "run the deploy again")
    assert_repaired(fleet)


def test_another_host_key_than_the_known_one(
    fleet: Fleet, converge: Converge, tmp_path: Path
) -> None:
    """As after a reinstallation, or with someone in between: the witness' key in its place."""
    lines = fleet.lab.known_hosts.read_text().splitlines()
    (other,) = {" ".join(line.split()[1:3]) for line in lines if fleet.addresses[WITNESS] in line}
    mine = fleet.addresses[VICTIM]
    file = tmp_path / "known_hosts"
    file.write_text(f"{mine} {other}\n")
    data = with_data(converge, ssh_known_hosts_file=str(file))
    run = converge(limit=PAIR, data=data)
    assert_refused(run, "host key", "CHANGED", "ssh-keygen -lf", f"ssh-keygen -R {mine}", str(file))
    assert VICTIM not in run.hosts
    file.write_text("")
    run = converge(limit=PAIR, data=data)
    assert_refused(run, "is not in", str(file), f"ssh-keyscan -t ed25519 {mine}")
    assert VICTIM not in run.hosts
    assert_repaired(fleet)


def test_sudo_is_refused(fleet: Fleet, converge: Converge) -> None:
    (root,) = [host.root for host in fleet.lab.hosts if host.name == VICTIM]
    rules = {
        path: path.read_bytes()
        for path in (root / "etc/sudoers.d").iterdir()
        if path.name != "README"
    }
    try:
        for path in rules:
            path.unlink()
        run = converge(limit=PAIR)
    finally:
        for path, content in rules.items():
            path.write_bytes(content)
            path.chmod(0o440)
    assert_refused(run, "sudo wants a password", "(farrier)", "next: ", "/etc/sudoers.d")
    assert run.changed(VICTIM) == []
    assert_repaired(fleet)


@pytest.fixture
def remount(fleet: Fleet) -> Iterator[Callable[[str], None]]:
    """The victim's agents on an empty disk, which this mounts anew with other options."""
    with agent_disk(fleet) as mounted:
        yield mounted


def test_the_disk_of_opt_is_full(
    fleet: Fleet, converge: Converge, remount: Callable[[str], None]
) -> None:
    remount("size=64m")
    run = converge(limit=PAIR)
    assert_refused(run, f"{AGENTS} has 64 MB free", "needs 200 MB", f"df -h {AGENTS}", "du -sh")
    # Enough of it, as far as anybody can tell beforehand: it fills up half-way.
    remount("size=400m,nr_inodes=300")
    run = converge(limit=PAIR)
    assert_refused(run, "the disk became full", "df -h", "df -i", "run the deploy again")
    assert fleet.root(VICTIM, f"ls -A {AGENTS}").split() == []
    remount("nr_inodes=0")
    assert "Agent | Environment" in assert_repaired(fleet).changed(VICTIM)


@pytest.mark.usefixtures("remount")
def test_the_disk_of_home_is_full_when_wheels_are_pushed(fleet: Fleet, converge: Converge) -> None:
    home = "/home/farrier/.cache/farrier"
    fleet.ssh(VICTIM, f"mkdir -p {home}")
    fleet.root(VICTIM, f"mount -t tmpfs -o size=1m,uid=farrier,mode=700 tmpfs {home}")
    try:
        run = converge(limit=PAIR)
        assert fleet.root(VICTIM, f"ls -A {home}").split() == []
    finally:
        fleet.root(VICTIM, f"umount -l {home}")
    assert_refused(run, "could not be pushed to", home, "df -h", "run the deploy again")
    assert_repaired(fleet)


HOLDER = """
import fcntl, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    open("/run/lock-held", "w").close()
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def lock_held(fleet: Fleet, path: str, seconds: float) -> Iterator[None]:
    """A foreign program holds apt's lock *path* on the victim."""
    fleet.put(VICTIM, "/run/lock-holder.py", HOLDER)
    start = "systemd-run -q --collect --unit=lock-holder python3 /run/lock-holder.py"
    fleet.root(VICTIM, f"{start} {path} {seconds}")
    until(lambda: fleet.root(VICTIM, "ls /run/lock-held", check=False), 20, f"{path} is held")
    try:
        yield
    finally:
        fleet.root(VICTIM, "systemctl stop lock-holder; rm -f /run/lock-held /run/lock-holder.py")


@pytest.mark.parametrize("path", ["/var/lib/apt/lists/lock", "/var/lib/dpkg/lock-frontend"])
def test_apts_lock_is_held(fleet: Fleet, converge: Converge, path: str) -> None:
    """Told after a bounded wait; one that ends in time, as unattended-upgrades, is waited for."""
    wanted = {"base_packages": ["ca-certificates", "iproute2", "python3-minimal", "hello"]}
    try:
        with lock_held(fleet, path, 600):
            run = converge(limit=PAIR, data=with_data(converge, **wanted, apt_lock_timeout=2))
        assert_refused(run, "apt's lock is held", "hello", "ps -ef", "run the deploy again")
        holder = re.search(r"process (\d+) \(python3\)|pid (\d+)", run.last_section("Failed:"))
        assert holder
        with lock_held(fleet, path, 4):
            run = converge(limit=[VICTIM], data=with_data(converge, **wanted))
        assert run.returncode == 0, run.last_words()
        assert run.changed(VICTIM) == ["Base | Packages"]
    finally:
        fleet.root(VICTIM, "dpkg --purge hello")
    assert_repaired(fleet)


def test_ports_are_taken_by_something_foreign(fleet: Fleet, converge: Converge) -> None:
    units = {8080: "nginx", 9810: "farrier-agent", 8101: "engine-tiny"}
    for port, unit in units.items():
        fleet.root(VICTIM, f"systemctl stop {unit}")
        server = f"python3 -m http.server {port}"
        fleet.root(VICTIM, f"systemd-run -q --collect --unit=squatter-{port} {server}")
    try:
        for port in units:
            until(
                lambda port=port: fleet.ssh(VICTIM, f"ss -Hltn sport = :{port}"),  # type: ignore[misc]
                20,
                f"something listens on {port}",
            )
        run = converge(limit=PAIR)
    finally:
        for port in units:
            fleet.root(VICTIM, f"systemctl stop squatter-{port}")
    told = [
        f"port {port}, meant for {unit}.service, is taken by python3"
        for port, unit in units.items()
    ]
    assert_refused(
        run,
        *told,
        "squatter-8080.service",
        "systemctl disable --now squatter-8080.service",
        status=3,
    )
    assert run.changed(VICTIM) == []
    repaired = assert_repaired(fleet)
    assert repaired.changed(VICTIM) == [
        *("nginx | Service", "Agent | Service", "Engine | Started", "Serving | Replicas are ready")
    ]


def test_a_model_that_is_not_on_the_host(fleet: Fleet, converge: Converge) -> None:
    place = "/srv/models/absent"
    models = with_model(converge, source=f"path:{place}")
    try:
        run = converge(limit=PAIR, models=models)
        assert_refused(run, "model tiny", f"{place} does not exist", "rsync", status=3)
        fleet.root(VICTIM, f"mkdir {place}; touch {place}/model.safetensors")
        run = converge(limit=PAIR, models=models)
        assert_refused(run, "model tiny", f"{place} has no config.json", "rsync", status=3)
        assert run.changed(VICTIM) == []
        fleet.put(VICTIM, f"{place}/config.json", "{}")
        fleet.put_bytes(VICTIM, f"{place}/model.safetensors", b"\x02" + bytes(7) + b"{}")
        run = converge(limit=PAIR, models=models)
        assert run.returncode == 0, run.last_words()
    finally:
        fleet.root(VICTIM, f"rm -rf {place}")
    assert_repaired(fleet)


def test_an_engine_that_exits_at_its_start(fleet: Fleet, converge: Converge) -> None:
    fleet.root(VICTIM, "systemctl stop engine-tiny")
    data = with_data(converge, engine_restart_seconds=1, engine_start_limit=50)
    run = converge(limit=PAIR, models=with_model(converge, "--exit-at-start", "3"), data=data)
    assert_refused(
        run,
        "replica tiny (engine-tiny.service) ended 2 times while starting",
        "RuntimeError: asked to exit at start with status 3",
        "journalctl -u engine-tiny.service",
        "run the deploy again",
    )
    # What its earlier, good start wrote is no explanation.
    assert "standin: serving tiny" not in run.last_section("Failed:")
    assert not fleet.gate(VICTIM)
    # Corrected, but wrong again, while systemd still starts the first mistake over and over: what
    # is told is the end of what the new one said, however much that was.
    says = "seq 3000; echo engine: error: cannot use {port} today >&2; exit 2"
    wrong = with_model(converge, command=["/bin/sh", "-c", says])
    run = converge(limit=PAIR, models=wrong, data=data)
    assert_refused(run, "while starting", "engine: error: cannot use 8101 today")
    assert "asked to exit" not in run.last_section("Failed:")
    assert "older configuration" not in run.last_section("Failed:")
    assert_repaired(fleet)


def test_an_engine_that_was_started_wrong_is_not_waited_for_in_silence(
    fleet: Fleet, converge: Converge
) -> None:
    """It runs, it serves nobody, and a converge does not restart it: whoever reads that can."""
    deaf = with_model(converge, command=["/bin/sleep", "1{port}"], start_timeout=2)
    fleet.root(VICTIM, "systemctl stop engine-tiny")
    run = converge(limit=PAIR, models=deaf)
    assert_refused(run, "did not answer within 2 s", "Correct the model in the inventory")
    run = converge(limit=PAIR, models=with_model(converge, start_timeout=2))
    assert_refused(run, "older configuration", "sudo farrier-agent restart tiny")
    fleet.root(VICTIM, "systemctl restart engine-tiny")
    assert_repaired(fleet)
