"""Engines from images by the real podman, on Debian 12 and 13: drains, crashes, refusals (18 min).

The image is made on the spot, of this machine's Python and the stand-in, which speaks Triton's
dialect; the registry is a stand-in on this machine. podman, crun and conmon are Debian's.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import TINY_MODEL
from tests.conftest import lab_of_tests
from tests.fakes.engine.packing import packed
from tests.fakes.registry import Image, Registry, python_image
from tests.roles.converging import Converge
from tests.roles.fleet import ACCOUNT, STAND_IN_PATIENCE, Fleet, until
from tests.roles.proof import assert_nothing_lost, at_work
from tests.roles.traffic import Traffic

BOOKWORM, TRIXIE = "gpu01", "gpu03"
HOSTS = (BOOKWORM, TRIXIE)
UNIT = "engine-tiny"
MODEL: Mapping[str, Any] = {
    "name": "tiny",
    "engine": "triton",
    "source": f"path:{TINY_MODEL}",
    "gpus": [],
    "port": 8101,
    "command": [
        *("/usr/bin/python3", "/opt/standin/standin.py", "--dialect", "triton"),
        *("--host", "{host}", "--port", "{port}", "--model", "{model}"),
        *("--account", ACCOUNT, "--token-delay", "0.05"),
    ],
}
STORAGE = "/etc/containers/storage.conf"
VFS = '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "{}"\n'
"""The lab's disks are overlays, on which the kernel mounts no second one: layers are copied."""
CONTAINERS = "/etc/containers/containers.conf"
NO_KEYRING = "[containers]\nkeyring = false\n"
"""A machine of systemd-nspawn may make no keyring: crun says "create keyring: Operation not
permitted". Hosts that are none need neither file."""


@dataclass(frozen=True)
class Archive:
    """An image, and the file on this machine that holds it."""

    image: Image
    path: Path

    @property
    def pinned(self) -> str:
        """As the inventory says it."""
        return f"{self.path}@sha256:{self.digest}"

    @property
    def digest(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Served:
    """The hosts, converged, and two versions of the image."""

    fleet: Fleet
    first: Archive
    second: Archive
    registry: Registry

    def model(self, **changes: Any) -> dict[str, Any]:
        """The model, from the first archive unless *changes* say otherwise."""
        return {**MODEL, "image_archive": self.first.pinned, **changes}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Both hosts after their first converge."""
    directory = tmp_path_factory.mktemp("images")
    archives = []
    for version in (b"1", b"2"):
        files = {"/opt/standin/standin.py": packed(), "/VERSION": version}
        path = directory / f"standin-{version.decode()}.tar"
        image = python_image(files)
        path.write_bytes(image.archive())
        archives.append(Archive(image, path))
    with lab_of_tests(os.environ.get("FARRIER_LAB", "test"), HOSTS) as lab:
        fleet = Fleet(lab, Converge(lab, directory))
        address = str(lab.definition.gateway)
        with Registry(address, [one.image for one in archives]) as registry:
            it = Served(fleet, archives[0], archives[1], registry)
            insecure = f'[[registry]]\nlocation = "{registry.name}"\ninsecure = true\n'
            for host in HOSTS:
                fleet.put(host, STORAGE, VFS.format("/var/lib/containers/storage"))
                fleet.put(host, CONTAINERS, NO_KEYRING)
                fleet.put(host, "/etc/containers/registries.conf.d/test.conf", insecure)
            fleet.converge.everywhere = {
                "nginx_clients": "keys",
                "agent_tick": 1.0,
                "engine_stop_timeout": STAND_IN_PATIENCE,
            }
            fleet.converge.models |= {host: [it.model()] for host in HOSTS}
            run = fleet.converge(limit=HOSTS, timeout=1200)
            if run.returncode:
                pytest.fail(f"the first converge failed:\n{run.last_words(60)}", pytrace=False)
            print(f"first converge: {run.seconds:.0f} s")
            yield it


def processes(fleet: Fleet, host: str) -> dict[str, tuple[str, str]]:
    """What runs in the unit's control group: program and user, by pid."""
    group = fleet.unit(host, UNIT, "ControlGroup")
    pids = fleet.root(host, f"cat /sys/fs/cgroup{group}/cgroup.procs").split()
    rows = fleet.root(host, f"ps -o pid=,comm=,user:20= -p {','.join(pids)}").splitlines()
    return {pid: (name, user) for pid, name, user in map(str.split, rows)}


def engine(fleet: Fleet, host: str) -> str:
    """The engine's own process."""
    (pid,) = [
        pid for pid, (name, _) in processes(fleet, host).items() if name.startswith("python3")
    ]
    return pid


def version(fleet: Fleet, host: str) -> str:
    """Which image it runs from."""
    return fleet.root(host, f"cat /proc/{engine(fleet, host)}/root/VERSION").strip()


on_both = pytest.mark.parametrize("host", HOSTS, ids=["bookworm", "trixie"])


@on_both
def test_it_serves_and_a_second_converge_changes_nothing(served: Served, host: str) -> None:
    fleet = served.fleet
    assert fleet.gate(host)
    assert fleet.chat(host).status == 200
    assert fleet.chat(host, stream=True).text.endswith("data: [DONE]\n\n")
    run = fleet.converge(limit=[host])
    assert (run.returncode, run.changed(host)) == (0, []), run.last_words()
    assert "Podman | Images" in run.unchanged(host)


@on_both
def test_all_of_it_is_in_its_unit_and_the_engine_is_nobody_in_particular(
    served: Served, host: str
) -> None:
    fleet = served.fleet
    there = processes(fleet, host)
    print(host, there)
    names = [name for name, _ in there.values()]
    assert {"podman", "conmon"} <= set(names)
    assert there[fleet.unit(host, UNIT, "MainPID")][0] == "podman"
    assert {user for name, user in there.values() if name not in {"podman", "conmon"}} == {
        "farrier-engine"
    }
    pid = engine(fleet, host)
    status = fleet.root(host, f"grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/{pid}/status").split()
    assert status == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
    of_init, of_engine = (
        int(fleet.root(host, f"grep Seccomp_filters /proc/{one}/status").split()[1])
        for one in (1, pid)
    )
    assert of_engine > of_init, "podman's filter of system calls"
    mounts = {
        line.split()[4]: line.split()[5]
        for line in fleet.root(host, f"cat /proc/{pid}/mountinfo").splitlines()
    }
    for path, access in {
        "/": "ro",
        TINY_MODEL: "ro",
        "/var/lib/farrier/engines/tiny": "rw",
        "/dev/shm": "rw",
    }.items():
        assert mounts[str(path)].split(",")[0] == access, path
    listens = fleet.root(host, "ss -Hltn sport = :8101").split()
    assert listens[3] == "127.0.0.1:8101"
    assert fleet.root(host, f"stat -c %U:%a {ACCOUNT}").strip() == "farrier-engine:600"
    run = fleet.unit(host, UNIT, "InvocationID")
    said = fleet.root(host, f"journalctl _SYSTEMD_INVOCATION_ID={run} -o cat --no-pager")
    assert said.count("standin: serving tiny on 127.0.0.1:8101") == 1


def restart(served: Served, host: str, traffic: Traffic) -> None:
    served.fleet.root(host, f"systemctl restart {UNIT}")


def stop(served: Served, host: str, traffic: Traffic) -> None:
    fleet = served.fleet
    fleet.root(host, f"systemctl stop {UNIT}")
    assert fleet.unit(host, UNIT, "ActiveState") == "inactive"
    assert fleet.unit(host, UNIT, "Result") == "success"
    assert fleet.root(host, "pgrep -f '[s]tandin.py' || true") == ""
    assert fleet.root(host, "podman ps -aq") == ""
    fleet.root(host, f"systemctl start {UNIT}")


def verb(served: Served, host: str, traffic: Traffic) -> None:
    served.fleet.root(host, "farrier-agent restart tiny --wait")


def reboot(served: Served, host: str, traffic: Traffic) -> None:
    served.fleet.lab.reboot(host)


def another_image(served: Served, host: str, traffic: Traffic) -> None:
    """To the second version by a converge and a restart, and back."""
    fleet = served.fleet
    for archive, number in ((served.second, "2"), (served.first, "1")):
        before = version(fleet, host)
        model = served.model(image_archive=archive.pinned)
        run = fleet.converge(models={host: [model]}, limit=[host])
        assert run.returncode == 0, run.last_words()
        assert "replica tiny runs an older configuration" in run.last_section("Restart pending")
        assert version(fleet, host) == before
        fleet.root(host, "farrier-agent restart tiny --wait")
        assert version(fleet, host) == number
    there = fleet.root(host, "podman image ls --format '{{.Repository}}:{{.Tag}}'").split()
    for archive in (served.first, served.second):
        assert f"localhost/farrier:{archive.digest}" in there


@on_both
@pytest.mark.parametrize(
    "action", [restart, stop, verb, reboot, another_image], ids=lambda it: it.__name__
)
def test_under_load_nothing_is_lost(
    served: Served, host: str, action: Callable[[Served, str, Traffic], None]
) -> None:
    fleet = served.fleet
    with fleet.traffic(host) as traffic:
        at_work(traffic)
        action(served, host, traffic)
        until(lambda: fleet.gate(host), 240, "its gate is open again")
        opened = traffic.now
        until(lambda: traffic.of("whole", since=opened), 60, "it serves again")
    assert_nothing_lost(fleet, host, traffic, listens=action is not reboot)
    assert traffic.of("refused"), "its gate was closed meanwhile"


@on_both
@pytest.mark.parametrize("manner", ["drain", "cut", "hang"])
def test_sigterm_reaches_the_engine(served: Served, host: str, manner: str) -> None:
    """One that ends by itself, one that SIGTERM ends (podman: 143), one that only SIGKILL ends."""
    fleet = served.fleet
    fleet.manners(host, on_sigterm=manner)
    fleet.root(host, f"systemctl stop {UNIT}")
    result = "timeout" if manner == "hang" else "success"
    assert fleet.unit(host, UNIT, "Result") == result
    if manner == "cut":
        assert fleet.unit(host, UNIT, "ExecMainStatus") == "143"
    assert fleet.root(host, "pgrep -f '[s]tandin.py' || true") == ""
    fleet.root(host, f"systemctl start {UNIT}")
    until(lambda: fleet.gate(host), 120, "it serves again")


@on_both
@pytest.mark.parametrize("who", ["podman", "engine", "conmon"])
def test_one_that_is_killed_comes_back_warm(served: Served, host: str, who: str) -> None:
    fleet = served.fleet
    name = {"podman": "podman", "conmon": "conmon", "engine": "python3"}[who]
    pids = [pid for pid, (one, _) in processes(fleet, host).items() if one.startswith(name)]
    before = fleet.unit(host, UNIT, "MainPID")
    # systemd gives up after five crashes in ten minutes, those of the tests before included
    fleet.root(host, f"systemctl reset-failed {UNIT}")
    restarts = int(fleet.unit(host, UNIT, "NRestarts"))
    fleet.root(host, f"kill -9 {pids[0]}")
    until(lambda: not fleet.gate(host), 60, "podman sees it within 20 s; its gate is closed")
    until(lambda: fleet.gate(host), 120, "systemd starts it, the agent warms it up")
    assert fleet.unit(host, UNIT, "MainPID") not in {"0", before}
    assert int(fleet.unit(host, UNIT, "NRestarts")) == restarts + 1, "its first start succeeded"
    assert fleet.root(host, "podman ps -aq").count("\n") == 1
    assert fleet.chat(host).status == 200


@on_both
def test_it_gets_the_gpus_that_it_is_given_by_cdi(served: Served, host: str) -> None:
    """The real podman's CDI, with a specification of devices that are none."""
    fleet = served.fleet
    devices = [
        {
            "name": str(number),
            "containerEdits": {
                "env": [f"GPU_{number}=here"],
                "deviceNodes": [{"path": f"/dev/nvidia{number}", "hostPath": "/dev/zero"}],
            },
        }
        for number in (0, 1)
    ]
    said = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}
    fleet.put(host, "/etc/cdi/nvidia.json", json.dumps(said))
    image = f"localhost/farrier:{served.first.digest}"
    asks = (
        "podman run --rm --pull=never --network=host --cgroups=disabled --cap-drop=all --user 1:1"
        f" --device=nvidia.com/gpu={{}} --entrypoint=/usr/bin/python3 {image} -c"
        ' "import os; print(*sorted(n for n in os.environ if n[:4] == \\"GPU_\\"),'
        ' *sorted(n for n in os.listdir(\\"/dev\\") if n[:6] == \\"nvidia\\"))"'
    )
    try:
        assert fleet.root(host, asks.format(1)).split() == ["GPU_1", "nvidia1"]
        nowhere = fleet.root(host, f"{asks.format(2)} 2>&1", check=False)
        assert "nvidia.com/gpu=2" in nowhere
    finally:
        fleet.root(host, "rm /etc/cdi/nvidia.json")


# From a registry


@on_both
def test_one_of_a_registry_is_pulled_by_its_digest(served: Served, host: str) -> None:
    fleet = served.fleet
    name = f"{served.registry.name}/engines/standin"
    model = served.model(image_archive="", image=f"{name}:2@sha256:{served.second.image.digest}")
    run = fleet.converge(models={host: [model]}, limit=[host])
    assert run.returncode == 0, run.last_words()
    fleet.root(host, "farrier-agent restart tiny --wait")
    assert version(fleet, host) == "2"
    again = fleet.converge(models={host: [model]}, limit=[host])
    assert (again.returncode, again.changed(host)) == (0, []), again.last_words()
    back = fleet.converge(limit=[host])
    assert back.returncode == 0, back.last_words()
    fleet.root(host, "farrier-agent restart tiny --wait")
    assert version(fleet, host) == "1"


def refused(served: Served, host: str, *words: str, **changes: Any) -> None:
    """A converge that fails with *words*, and leaves the replica and its unit alone."""
    fleet = served.fleet
    before = fleet.unit(host, UNIT, "InvocationID")
    unit = fleet.root(host, f"cat /etc/systemd/system/{UNIT}.service")
    run = fleet.converge(models={host: [served.model(**changes)]}, limit=[host])
    assert run.returncode != 0
    for one in words:
        assert one in run.stderr, run.last_words()
    assert fleet.unit(host, UNIT, "InvocationID") == before
    assert fleet.root(host, f"cat /etc/systemd/system/{UNIT}.service") == unit
    assert fleet.chat(host).status == 200


@on_both
def test_an_image_that_is_not_there_is_refused(served: Served, host: str) -> None:
    name, digest = f"{served.registry.name}/engines/standin", "ab" * 32
    unknown = {"image_archive": "", "image": f"{name}@sha256:{digest}"}
    words = f"{served.registry.name} has no image {name} with the digest sha256:{digest}"
    refused(served, host, words, **unknown)
    served.registry.closed = True
    try:
        refused(served, host, "podman login --authfile", **unknown)
    finally:
        served.registry.closed = False
    nobody = f"localhost:9/engines/standin@sha256:{digest}"
    words = "image_archive='/path/to/FILE@sha256:HASH' instead of image="
    refused(served, host, words, image_archive="", image=nobody)


@on_both
def test_an_archive_that_is_none_is_refused(served: Served, host: str, tmp_path: Path) -> None:
    missing = f"{tmp_path}/missing.tar@sha256:{'ab' * 32}"
    words = f"the image archive {tmp_path}/missing.tar is not on this machine"
    refused(served, host, words, image_archive=missing)
    other = f"{served.first.path}@sha256:{'ab' * 32}"
    words = f"has the SHA-256 {served.first.digest}, and the inventory wants {'ab' * 32}"
    refused(served, host, words, image_archive=other)
    nothing = tmp_path / "nothing.tar"
    nothing.write_bytes(served.first.path.read_bytes()[:5_000_000])
    broken = Archive(served.first.image, nothing)
    refused(served, host, f"podman cannot load {nothing}", image_archive=broken.pinned)
    listing = "podman image ls --all --quiet --no-trunc | sort -u"
    before = served.fleet.root(host, listing)
    both = tmp_path / "both.tar"
    both.write_bytes(served.first.image.archive(served.second.image))
    two = Archive(served.first.image, both)
    refused(served, host, f"{both} holds more than one image", image_archive=two.pinned)
    assert served.fleet.root(host, listing) == before, "neither of them is kept"


@on_both
def test_an_image_that_is_gone_at_a_start_is_told_by_the_unit(served: Served, host: str) -> None:
    fleet = served.fleet
    name = f"localhost/farrier:{served.first.digest}"
    fleet.root(host, f"systemctl stop {UNIT}")
    fleet.root(host, f"podman image rm --force {name}")
    fleet.root(host, f"systemctl start {UNIT}", check=False)
    words = f"run: error: the image {name} is not on this host: run the deploy again"
    told = f"journalctl -u {UNIT} -o cat --no-pager -n 200"
    until(lambda: words in fleet.root(host, told), 30, "the unit says which image is missing")
    run = fleet.converge(limit=[host])
    assert run.returncode == 0, run.last_words()
    assert fleet.chat(host).status == 200


@on_both
def test_the_role_is_removed_with_its_images(served: Served, host: str) -> None:
    fleet = served.fleet
    for role in ("engine", "podman"):
        run = fleet.converge("--data", f"role={role}", deploy="deploys/remove.py", limit=[host])
        assert run.returncode == 0, run.last_words()
    assert fleet.root(host, "ls -d /opt/farrier/podman", check=False) == ""
    assert fleet.root(host, "podman ps -aq; podman image ls -q") == ""
    again = fleet.converge("--data", "role=podman", deploy="deploys/remove.py", limit=[host])
    assert (again.returncode, again.changed(host)) == (0, [])
