"""A replica's Ray over two hosts: the real Ray, a stand-in for vLLM (10 min).

vLLM on CPUs refuses Ray. Its place in the environment is taken by a package of the same name whose
API server is the stand-in of tests/fakes/engine, which does not know of Ray.
"""

from __future__ import annotations

import base64
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import TINY_MODEL, Lab
from farrier.load import Background, Endpoint, Plan
from farrier.wheelhouse import split_lock
from tests.conftest import lab_of_tests
from tests.fakes.engine.packing import packed
from tests.roles.converging import ROOT, Converge
from tests.roles.fleet import asked, until

HEAD, MEMBER = "gpu01", "gpu02"
ENGINE, NODE = "engine-big.service", "engine-big-ray.service"
WARM = 240
STAND_IN = "/opt/standin"
RAY_NEEDS = (
    *("attrs", "certifi", "charset-normalizer", "click", "filelock", "idna", "jsonschema"),
    *("jsonschema-specifications", "packaging", "protobuf", "pyyaml", "referencing", "requests"),
    *("rpds-py", "typing-extensions", "urllib3"),
)
"""All that Ray needs besides what roles/vllm/locks/ray.txt has."""
API_SERVER = f"""
import os, sys
def of(flag):
    return sys.argv[sys.argv.index(flag) + 1]
os.execv("/usr/bin/python3", ["python3", "{STAND_IN}/standin.py", "--port", of("--port"),
                              "--model", of("--served-model-name")])
"""
BIG: Mapping[str, Any] = {
    "name": "big",
    "source": f"path:{TINY_MODEL}",
    "gpus": [],
    "hosts": [HEAD, MEMBER],
    "args": {"distributed-executor-backend": "ray", "max-model-len": 2048},
    "env": {"FARRIER_ENGINE_IS_A_STAND_IN": "1", "PYTHONPATH": STAND_IN},
    "start_timeout": WARM,
}


class Cluster:
    """The lab with this replica, and how tests ask and command it."""

    def __init__(self, lab: Lab, converge: Converge) -> None:
        self.lab = lab
        self.converge = converge
        self.addresses = {host.name: str(host.address) for host in lab.hosts}
        token = converge.directory / "ray.token"
        token.write_text("0123456789abcdef" * 4)
        token.chmod(0o600)
        self.keys = tomllib.loads(lab.keys_file.read_text())["keys"]
        said = {
            "agent_tick": 1.0,
            "nginx_clients": "keys",
            "vllm_locks": str(_without_vllm(converge.directory / "locks")),
            "ray_token_file": str(token),
        }
        converge.models |= {HEAD: [BIG], MEMBER: []}
        converge.data |= dict.fromkeys((HEAD, MEMBER), said)

    def root(self, host: str, command: str, check: bool = True) -> str:
        """What *command* printed on *host* as root; it has to end well if *check*."""
        done = self.lab.ssh(host, "sudo sh -s", input=command, check=False)
        assert not check or done.returncode == 0, f"{host}: {command}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def put(self, host: str, path: str, content: bytes) -> None:
        """Write a file on *host*."""
        words = f"mkdir -p {Path(path).parent} && base64 -d > {path} && chmod 755 {path}"
        done = self.lab.ssh(host, f"sudo sh -c '{words}'", input=_base64(content))
        assert done.returncode == 0, done.stderr

    def told(self) -> dict[str, Any]:
        """What the head's node tells of the cluster; empty while there is none."""
        text = self.root(HEAD, "cat /run/farrier/ray-*/cluster.json", check=False)
        return dict(json.loads(text)) if text else {}

    def serves(self) -> bool:
        """It is whole, and the gate is open."""
        open_gates = self.lab.ssh(HEAD, "ls /run/farrier/open", check=False).stdout.split()
        return open_gates == ["big"] and self.told().get("lacks") == []

    def settled(self, patience: float = WARM) -> None:
        """Return when it serves."""
        until(self.serves, patience, "the replica serves")

    def run(self, host: str, unit: str) -> str:
        """The present run of *unit* on *host*."""
        return self.root(host, f"systemctl show -P InvocationID {unit}").strip()

    def runs(self) -> dict[tuple[str, str], str]:
        """Those of all its units."""
        units = ((HEAD, ENGINE), (HEAD, NODE), (MEMBER, NODE))
        return {one: self.run(*one) for one in units}

    def anew(self, before: dict[tuple[str, str], str]) -> None:
        """Return when every unit has another run than *before*, and it serves."""
        until(
            lambda: all(run != before[one] for one, run in self.runs().items()),
            WARM,
            "all of its units began anew",
        )
        self.settled()

    def journal(self, host: str, unit: str) -> str:
        """What the present run of *unit* on *host* said."""
        run = self.run(host, unit)
        return self.root(host, f"journalctl -o cat --no-pager _SYSTEMD_INVOCATION_ID={run}")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _without_vllm(directory: Path) -> Path:
    """Locks of an environment for Ray alone: the versions that it has beside vLLM."""
    directory.mkdir()
    lock = split_lock((ROOT / "roles/vllm/locks/cpu-cp311.txt").read_text())
    (directory / "cpu-cp311.txt").write_text("".join(lock[name] for name in RAY_NEEDS))
    return directory


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The lab after its converge; taken down in the end, unless FARRIER_KEEP_LAB=1."""
    with lab_of_tests(os.environ.get("FARRIER_LAB", "test"), [HEAD, MEMBER]) as lab:
        it = Cluster(lab, Converge(lab, tmp_path_factory.mktemp("ray")))
        for host in (HEAD, MEMBER):
            it.put(host, f"{STAND_IN}/standin.py", packed())
            package = f"{STAND_IN}/vllm/entrypoints/openai/api_server.py"
            it.put(host, package, API_SERVER.encode())
        run = it.converge(timeout=1200)
        if run.returncode:
            pytest.fail(f"the first converge failed:\n{run.last_words(60)}", pytrace=False)
        print(f"first converge: {run.seconds:.0f} s")
        it.settled()
        yield it


def test_a_converge_brings_a_cluster_of_two_nodes_and_the_engine_after_it(cluster: Cluster) -> None:
    told = cluster.told()
    assert (told["nodes"], told["wanted"], told["lacks"]) == (2, 2, [])
    assert "Ray is whole: gpu01, gpu02" in cluster.journal(HEAD, ENGINE)
    program = "/opt/farrier/vllm/current/bin/python"
    version = cluster.root(MEMBER, f"{program} -c 'import ray; print(ray.__version__)'")
    assert f"ray=={version.strip()} " in (ROOT / "roles/vllm/locks/ray.txt").read_text()
    status = asked((cluster.addresses[HEAD], 9810), "/status").json()
    assert [one["name"] for one in status["replicas"]] == ["big"]
    assert NODE in {one["name"] for one in status["units"]}


def test_a_second_converge_changes_nothing(cluster: Cluster) -> None:
    run = cluster.converge(timeout=600)
    assert run.returncode == 0, run.last_words()
    assert [run.changed(host) for host in (HEAD, MEMBER)] == [[], []]


def test_who_has_no_token_gets_nothing_and_no_port_is_elsewhere(cluster: Cluster) -> None:
    for host in (HEAD, MEMBER):
        assert cluster.root(host, "stat -c %a:%U:%G /etc/farrier/ray-token") == (
            "640:root:farrier-vllm\n"
        )
        assert "0123456789abcdef" not in cluster.root(host, "cat /proc/[0-9]*/cmdline")
        heard = cluster.root(host, "ss -Hltnp").splitlines()
        of_ray = [line for line in heard if any(one in line for one in ("raylet", "gcs_", "ray::"))]
        ports = [int(line.split()[3].rpartition(":")[2]) for line in of_ray]
        assert ports, heard
        assert all(port in range(29501, 29601) for port in ports), of_ray
        pythons = [line.split()[3] for line in heard if '"python' in line]
        assert [at for at in pythons if "127.0.0.1" not in at and ":295" not in at] == []
        allowed = cluster.root(host, f"systemctl show -P IPAddressAllow {NODE}").split()
        of_lab = {at for at in allowed if at.startswith("198.18.")}
        assert of_lab == {f"{cluster.addresses[one]}/32" for one in (HEAD, MEMBER)}
    at = f"{cluster.addresses[HEAD]}:29501"
    look = f"from ray._raylet import GcsClient as G; G(address='{at}').get_all_node_info(timeout=5)"
    command = f'RAY_AUTH_MODE=disabled /opt/farrier/vllm/current/bin/python -c "{look}" 2>&1'
    said = cluster.root(MEMBER, command, check=False)
    assert "AuthenticationError" in said, said


def test_a_members_raylet_that_is_killed_is_seen_and_all_begins_anew(cluster: Cluster) -> None:
    before = cluster.runs()
    cluster.root(MEMBER, "pkill -KILL -x raylet")
    cluster.anew(before)
    said = cluster.root(HEAD, f"journalctl -u {NODE} -o cat --no-pager")
    assert "Ray has lost what its engine needs, and begins anew: gpu02" in said


def test_a_heads_gcs_that_is_killed_takes_all_with_it_and_all_comes_back(cluster: Cluster) -> None:
    before = cluster.runs()
    cluster.root(HEAD, "pkill -KILL -x gcs_server")
    cluster.anew(before)
    assert cluster.told()["nodes"] == 2


def restart(it: Cluster) -> None:
    it.root(HEAD, "farrier-agent restart big --wait")


def begin_anew_with_the_node(it: Cluster) -> None:
    """The engine is drained before its node goes."""
    it.root(HEAD, f"systemctl restart {NODE}")


@pytest.mark.parametrize("deed", [restart, begin_anew_with_the_node])
def test_nothing_is_lost(cluster: Cluster, deed: Callable[[Cluster], None]) -> None:
    cluster.settled()
    engine = cluster.run(HEAD, ENGINE)
    plan = Plan(models=("big",), seconds=3600, streams=4, stream_seconds=(1.0, 8.0), posts=2)
    url = f"http://{cluster.addresses[HEAD]}:8080/v1"
    with Background(plan, Endpoint(url, dict(cluster.keys))) as load:
        until(lambda: len(load.ledger.of("complete")) > 10, 60, "the load runs")
        deed(cluster)
        until(lambda: cluster.run(HEAD, ENGINE) != engine, WARM, "another run of the engine")
        cluster.settled()
        now = load.ledger.now
        until(lambda: len(load.ledger.of("complete", since=now)) > 10, 60, "it serves again")
        ledger = load.end()
    print(f"{deed.__name__}: {dict(ledger.outcomes)}")
    assert ledger.lost == 0, [str(one) for one in ledger.losses()][:5]


def test_a_node_that_is_stopped_has_not_failed(cluster: Cluster) -> None:
    cluster.settled()
    cluster.root(HEAD, f"systemctl stop {NODE}")
    for unit in (ENGINE, NODE):
        assert cluster.root(HEAD, f"systemctl show -P ActiveState {unit}").strip() == "inactive"
    cluster.root(HEAD, f"systemctl start {ENGINE}")
    cluster.settled()


@pytest.mark.parametrize("host", [MEMBER, HEAD])
def test_a_reboot_of_either_host(cluster: Cluster, host: str) -> None:
    before = cluster.runs()
    cluster.lab.reboot(host)
    cluster.anew(before)
    assert cluster.told()["nodes"] == 2


def test_an_engine_does_not_start_while_a_node_is_missing_and_says_which(cluster: Cluster) -> None:
    cluster.settled()
    before = cluster.run(HEAD, ENGINE)
    cluster.root(MEMBER, f"systemctl stop {NODE}")
    until(lambda: cluster.run(HEAD, ENGINE) != before, 120, "the engine began anew")
    missing = f"waiting for Ray: gpu02 ({cluster.addresses[MEMBER]}) is not there"
    until(lambda: missing in cluster.journal(HEAD, ENGINE), 60, "the engine says who is missing")
    assert cluster.root(HEAD, "ls /run/farrier/open") == ""
    assert ":8101 " not in cluster.root(HEAD, "ss -Hltn")
    cluster.root(MEMBER, f"systemctl start {NODE}")
    cluster.settled()


def test_a_removal_leaves_nothing(cluster: Cluster) -> None:
    run = cluster.converge("--data", "role=engine", deploy="deploys/remove.py", timeout=600)
    assert run.returncode == 0, run.last_words()
    for host in (HEAD, MEMBER):
        left = "ls -d /run/farrier/ray-* /etc/farrier/ray-token /etc/systemd/system/engine-*"
        assert cluster.root(host, f"{left} /var/lib/farrier/engines/* 2>/dev/null; true") == ""
        assert cluster.root(host, "pgrep -a -f [r]ay || true") == ""
        assert ":295" not in cluster.root(host, "ss -Hltn")
