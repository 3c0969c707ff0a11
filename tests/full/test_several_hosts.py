"""One replica over two hosts by vLLM's --nnodes, with the real vLLM on CPUs (20 min)."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from farrier.lab import TINY_MODEL, Lab
from farrier.load import Background, Endpoint, Plan
from tests.conftest import lab_of_tests
from tests.roles.converging import ROOT, Converge
from tests.roles.fleet import Answer, asked, until

HEAD, MEMBER = "gpu01", "gpu02"
HEADS_UNIT, MEMBERS_UNIT = "engine-big.service", "engine-big-rank1.service"
WARM = 900
FARRIER = ROOT / ".venv" / "bin" / "farrier"

BIG: Mapping[str, Any] = {
    "name": "big",
    "source": f"path:{TINY_MODEL}",
    "gpus": [],
    "hosts": [HEAD, MEMBER],
    "args": {
        "tensor-parallel-size": 2,
        "dtype": "float32",  # bfloat16 needs AMX where the CPU names it, and not every VM lets it
        "enforce-eager": True,
        "max-model-len": 2048,
    },
    "env": {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    },
    "start_timeout": WARM,
}


class Spanning:
    """The lab ``bench`` with this replica, and how tests ask and command it."""

    def __init__(self, lab: Lab, converge: Converge) -> None:
        self.lab = lab
        self.converge = converge
        self.addresses = {host.name: str(host.address) for host in lab.hosts}
        self.keys = tomllib.loads(lab.keys_file.read_text())["keys"]
        converge.models |= {HEAD: [BIG], MEMBER: [], "gpu03": []}
        said = {"nginx_clients": "keys", "agent_tick": 1.0}
        converge.data |= dict.fromkeys((HEAD, MEMBER), said)

    def root(self, host: str, command: str) -> str:
        """What *command* printed on *host* as root; it has to end well."""
        done = self.lab.ssh(host, f"sudo sh -c '{command}'", check=False)
        assert done.returncode == 0, f"{host}: {command}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def serves(self) -> bool:
        """The gate is open."""
        return self.lab.ssh(HEAD, "ls /run/farrier/open", check=False).stdout.split() == ["big"]

    def settled(self) -> None:
        """Return when it serves."""
        until(self.serves, WARM, "the replica serves")

    def run(self, host: str) -> str:
        """The run of the replica's unit on *host*."""
        unit = HEADS_UNIT if host == HEAD else MEMBERS_UNIT
        return self.root(host, f"systemctl show -P InvocationID {unit}").strip()

    def ask(self) -> Answer:
        """A completion, from the head's nginx."""
        body = {"model": "big", "prompt": "apple", "max_tokens": 8, "temperature": 0}
        key = next(iter(self.keys.values()))
        return asked((self.addresses[HEAD], 8080), "/v1/completions", key=key, body=body)

    def rollout(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``farrier rollout`` on this inventory."""
        return subprocess.run(
            [str(FARRIER), "rollout", *words],
            cwd=ROOT,
            env=self.converge.environment(),
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def spanning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spanning]:
    """The lab after its converge; taken down in the end, unless FARRIER_KEEP_LAB=1."""
    with lab_of_tests("bench") as lab:
        it = Spanning(lab, Converge(lab, tmp_path_factory.mktemp("spanning")))
        run = it.converge(timeout=2400)
        if run.returncode:
            pytest.fail(f"the first converge failed:\n{run.last_words(60)}", pytrace=False)
        print(f"first converge: {run.seconds:.0f} s")
        it.settled()
        yield it


def test_two_hosts_answer_as_one(spanning: Spanning) -> None:
    answer = spanning.ask()
    assert answer.status == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 8
    for host in (HEAD, MEMBER):
        unit = HEADS_UNIT if host == HEAD else MEMBERS_UNIT
        said = spanning.root(host, f"journalctl -u {unit} -o cat --no-pager")
        assert "world_size=2" in said, f"{host}: {said[-2000:]}"


def test_a_second_converge_changes_nothing(spanning: Spanning) -> None:
    run = spanning.converge(timeout=1200)
    assert run.returncode == 0, run.last_words()
    assert [run.changed(host) for host in (HEAD, MEMBER)] == [[], []]


def test_only_the_head_has_a_gate_and_a_port(spanning: Spanning) -> None:
    status = asked((spanning.addresses[MEMBER], 9810), "/status").json()
    assert status["replicas"] == []
    [unit] = [one for one in status["units"] if one["name"] == MEMBERS_UNIT]
    assert unit["active_state"] == "active"
    assert spanning.root(MEMBER, "ls /run/farrier/open") == ""
    assert ":8101 " not in spanning.root(MEMBER, "ss -Hltn")


def restart(it: Spanning) -> None:
    it.root(HEAD, "farrier-agent restart big --wait")


def reboot_the_head(it: Spanning) -> None:
    it.lab.reboot(HEAD, patience=600)


def reboot_the_member(it: Spanning) -> None:
    """As docs/layouts.md has it: the replica is drained by a person before."""
    it.root(HEAD, "farrier-agent drain big --wait --reason=member")
    it.lab.reboot(MEMBER, patience=600)
    it.root(HEAD, "farrier-agent restart big --wait")


@pytest.mark.parametrize("deed", [restart, reboot_the_head, reboot_the_member])
def test_nothing_is_lost_and_the_member_follows(
    spanning: Spanning, deed: Callable[[Spanning], None]
) -> None:
    """It is the only replica of its model: while it is away clients get 503, and lose nothing."""
    spanning.settled()
    before = {host: spanning.run(host) for host in (HEAD, MEMBER)}
    plan = Plan(models=("big",), seconds=3600, streams=2, stream_seconds=(1.0, 8.0), posts=2)
    url = f"http://{spanning.addresses['gw01']}/v1"
    with Background(plan, Endpoint(url, dict(spanning.keys))) as load:
        until(lambda: len(load.ledger.of("complete")) > 5, 180, "the load runs")
        deed(spanning)
        spanning.settled()
        now = load.ledger.now
        until(lambda: len(load.ledger.of("complete", since=now)) > 5, 300, "it serves again")
        ledger = load.end()
    print(f"{deed.__name__}: {dict(ledger.outcomes)}")
    assert ledger.lost == 0, [str(one) for one in ledger.losses()][:5]
    after = {host: spanning.run(host) for host in (HEAD, MEMBER)}
    assert all(before[host] != after[host] for host in before)


def test_a_member_that_is_killed_is_joined_by_a_new_run(spanning: Spanning) -> None:
    """Found by the next request alone, which is lost: then the head ends, and both begin anew."""
    spanning.settled()
    before = {host: spanning.run(host) for host in (HEAD, MEMBER)}
    restarts = int(spanning.root(HEAD, f"systemctl show -P NRestarts {HEADS_UNIT}"))
    spanning.root(MEMBER, "pkill -KILL -f [h]eadless")
    until(lambda: spanning.run(MEMBER) != before[MEMBER], 60, "the member's unit begins again")
    assert spanning.ask().status >= 500
    until(lambda: not spanning.serves(), 60, "the gate is closed")
    spanning.settled()
    answer = spanning.ask()
    assert answer.status == 200, answer.text
    assert spanning.run(HEAD) != before[HEAD]
    assert int(spanning.root(HEAD, f"systemctl show -P NRestarts {HEADS_UNIT}")) == restarts + 1


def test_the_member_stops_after_the_head_and_starts_with_it(spanning: Spanning) -> None:
    spanning.settled()
    spanning.root(HEAD, f"systemctl stop {HEADS_UNIT}")
    engine = partial(spanning.root, MEMBER, "pgrep -fc [h]eadless || true")
    until(lambda: engine().strip() == "0", 90, "the member's engine ended")
    said = spanning.root(MEMBER, f"journalctl -u {MEMBERS_UNIT} -o cat --no-pager | tail -n 400")
    assert "of replica big is over" in said
    spanning.root(HEAD, f"systemctl start {HEADS_UNIT}")
    spanning.settled()
    assert spanning.ask().status == 200


def test_an_agent_that_is_away_ends_nothing(spanning: Spanning) -> None:
    spanning.settled()
    before = spanning.run(MEMBER)
    spanning.root(HEAD, "systemctl restart farrier-agent")
    until(lambda: spanning.ask().status == 200, 60, "it answers")
    assert spanning.run(MEMBER) == before


def test_a_rollout_leaves_the_members_host_to_a_person(spanning: Spanning) -> None:
    done = spanning.rollout("reboot", "--limit", MEMBER, "-y")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "farrier drain gpu01/big" in done.stdout + done.stderr
    done = spanning.rollout("converge", "--limit", HEAD, "-y")
    assert done.returncode == 3
    assert "pyinfra inventory deploys/llm.py" in done.stdout + done.stderr
    assert spanning.serves()
