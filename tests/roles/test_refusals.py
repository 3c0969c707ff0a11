"""What goes wrong on real hosts: told with host, cause and next step, and repaired by a good run.

Everything happens to gpu03; gpu02 is converged beside it and has to get through every time.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.roles.converging import Converge, Run
from tests.roles.fleet import Fleet, until

VICTIM, WITNESS = "gpu03", "gpu02"
PAIR = (VICTIM, WITNESS)
AGENTS = "/opt/farrier/agent"


def assert_refused(run: Run, *told: str) -> None:
    """*run* failed for the victim alone, which the last lines explain with every one of *told*."""
    assert run.returncode == 1, run.last_words()
    assert "Traceback" not in run.stderr, run.stderr
    failed = run.last_section("Failed:")
    assert re.findall(r"^  (\w+): ", failed, re.MULTILINE) == [VICTIM], failed
    assert [words for words in told if words not in failed] == [], failed
    assert run.stderr.rstrip().endswith(failed.rstrip())
    # Once where it happened and once at the end, not more.
    first = failed.strip().splitlines()[0].partition(": ")[2]
    assert run.stderr.count(first) == 2, run.stderr
    if WITNESS in run.hosts:
        assert "Serving | Replicas are ready" in run.unchanged(WITNESS), run.last_words(60)


def assert_repaired(fleet: Fleet, run: Run | None = None) -> Run:
    """A good run ends with 0, the victim serves, and then there is nothing left to do."""
    run = run or fleet.converge(limit=[VICTIM])
    assert run.returncode == 0, run.last_words()
    assert fleet.chat(VICTIM).status == 200
    again = fleet.converge(limit=[VICTIM])
    assert again.returncode == 0, again.last_words()
    assert again.changed(VICTIM) == []
    return run


def with_data(converge: Converge, **more: object) -> dict[str, dict[str, object]]:
    """The victim's data in the inventory, and *more*."""
    return {VICTIM: {**converge.data.get(VICTIM, {}), **more}}


def with_model(converge: Converge, *words: str, **more: object) -> dict[str, list[dict[str, Any]]]:
    """The victim's one model with other fields, and *words* more in its command."""
    (model,) = converge.models[VICTIM]
    return {VICTIM: [{**model, "command": [*model["command"], *words], **more}]}


def said(process: subprocess.Popen[str], words: str) -> str:
    """Read what *process* tells the operator until a line has *words*; returns that line."""
    assert process.stderr is not None
    heard = []
    for line in process.stderr:
        heard.append(line)
        if words in line:
            return line
    pytest.fail(f"it never said {words!r}:\n{''.join(heard)}")


def killed(process: subprocess.Popen[str]) -> None:
    """SIGKILL: nothing of it gets a chance to tidy up."""
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


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
def agent_disk(fleet: Fleet) -> Iterator[Callable[[str], None]]:
    """An empty disk where the victim has its agents; call it with options to mount it anew.

    The running agent keeps the files that it has open.
    """
    fleet.root(VICTIM, f"mount -t tmpfs -o size=400m tmpfs {AGENTS}")

    def mounted(options: str) -> None:
        fleet.root(VICTIM, f"mount -o remount,{options} {AGENTS}")

    yield mounted
    fleet.root(VICTIM, f"umount -l {AGENTS}")


def test_the_disk_of_opt_is_full(
    fleet: Fleet, converge: Converge, agent_disk: Callable[[str], None]
) -> None:
    agent_disk("size=64m")
    run = converge(limit=PAIR)
    assert_refused(run, f"{AGENTS} has 64 MB free", "needs 200 MB", f"df -h {AGENTS}", "du -sh")
    # Enough of it, as far as anybody can tell beforehand: it fills up half-way.
    agent_disk("size=400m,nr_inodes=300")
    run = converge(limit=PAIR)
    assert_refused(run, "the disk became full", "df -h", "df -i", "run the deploy again")
    assert fleet.root(VICTIM, f"ls -A {AGENTS}").split() == []
    agent_disk("nr_inodes=0")
    assert "Agent | Environment" in assert_repaired(fleet).changed(VICTIM)


@pytest.mark.usefixtures("agent_disk")
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
    assert_refused(run, *told, "squatter-8080.service", "systemctl status", "another port")
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
        assert_refused(run, "model tiny", f"{place} does not exist", "rsync", "source=")
        fleet.root(VICTIM, f"mkdir {place}; touch {place}/model.safetensors")
        run = converge(limit=PAIR, models=models)
        assert_refused(run, "model tiny", f"{place} has no config.json", "copy it again", "source=")
        assert run.changed(VICTIM) == []
        fleet.put(VICTIM, f"{place}/config.json", "{}")
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
    assert_refused(run, "older configuration", "sudo systemctl restart engine-tiny.service")
    fleet.root(VICTIM, "systemctl restart engine-tiny")
    assert_repaired(fleet)


@pytest.mark.usefixtures("agent_disk")
@pytest.mark.parametrize("both_ends", [False, True], ids=["operator", "operator-and-host"])
def test_a_run_killed_while_it_fills_an_environment(
    fleet: Fleet, converge: Converge, both_ends: bool
) -> None:
    """What it started on the host goes on without it, unless that is killed as well."""
    process = converge.start(limit=[VICTIM])
    said(process, "pushed in")
    until(lambda: ".filling" in fleet.ssh(VICTIM, f"ls {AGENTS}"), 20, "it is being filled")
    killed(process)
    if both_ends:
        fleet.root(VICTIM, "pkill -KILL -f [.]filling")
        assert ".filling" in fleet.ssh(VICTIM, f"ls {AGENTS}")
    assert_repaired(fleet)
    (version,) = set(fleet.ssh(VICTIM, f"ls {AGENTS}").split()) - {"current"}
    assert fleet.ssh(VICTIM, f"readlink {AGENTS}/current; cat {AGENTS}/{version}/.complete") == (
        f"{version}\n3.13\n"
    )


SYSTEMCTL = "/usr/bin/systemctl"
HANGING = f"""#!/bin/sh
case "$*" in *"@WORDS@"*) echo $$ > /run/hanging; exec sleep 600;; esac
exec {SYSTEMCTL}-real "$@"
"""


@contextmanager
def systemctl_hangs(fleet: Fleet, words: str) -> Iterator[Callable[[], str]]:
    """The victim's systemctl hangs when it is asked for *words*; yields whether it does."""
    fleet.put(VICTIM, "/usr/local/bin/hanging", HANGING.replace("@WORDS@", words), mode="755")
    fleet.root(
        VICTIM,
        f"cp {SYSTEMCTL} {SYSTEMCTL}-real && mount --bind /usr/local/bin/hanging {SYSTEMCTL}",
    )
    try:
        yield lambda: fleet.ssh(VICTIM, "cat /run/hanging", check=False)
    finally:
        fleet.root(VICTIM, f"umount {SYSTEMCTL}; rm -f {SYSTEMCTL}-real /usr/local/bin/hanging")
        fleet.root(VICTIM, "kill $(cat /run/hanging); rm /run/hanging", check=False)


def large_request(fleet: Fleet) -> object:
    """The status of a request of more than 1 kB."""
    return fleet.chat(VICTIM, padding="x" * 2000).status


def agents_start(fleet: Fleet) -> object:
    """When the agent was started."""
    return fleet.unit(VICTIM, "farrier-agent.service", "ActiveEnterTimestampMonotonic")


@dataclass(frozen=True)
class Change:
    """A change of *data* that *operation* makes a service take, by asking systemctl for *words*.

    *seen* is something of the service that only then becomes another.
    """

    operation: str
    words: str
    data: Mapping[str, object]
    seen: Callable[[Fleet], object]


CHANGES = (
    Change("nginx | Service", "reload nginx.service", {"nginx_max_body": "1k"}, large_request),
    Change("Agent | Service", "restart farrier-agent.service", {"agent_tick": 4.0}, agents_start),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.operation)
def test_a_run_killed_between_a_file_and_its_service(
    fleet: Fleet, converge: Converge, change: Change
) -> None:
    data = with_data(converge, **change.data)
    before = change.seen(fleet)
    with systemctl_hangs(fleet, change.words) as hanging:
        process = converge.start(limit=[VICTIM], data=data)
        said(process, f"Starting operation: {change.operation}")
        until(hanging, 20, f"systemctl {change.words} hangs")
        killed(process)
    assert change.seen(fleet) == before
    try:
        run = converge(limit=[VICTIM], data=data)
        assert run.returncode == 0, run.last_words()
        assert run.changed(VICTIM) == [change.operation]
        assert change.seen(fleet) != before
    finally:
        converge(limit=[VICTIM])
    assert_repaired(fleet)
