"""The engine transformers on a host: converge, drains, restarts and a reboot under load (8 min)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import lab_of_tests
from tests.roles.converging import Converge
from tests.roles.fleet import TINY, Fleet, until
from tests.roles.proof import assert_nothing_lost, at_work
from tests.roles.traffic import Plan, Traffic

HOST = "gpu01"
MODEL: dict[str, Any] = {
    **TINY,
    "engine": "transformers",
    "args": {"max-waiting": 32},
    "env": {"OMP_NUM_THREADS": "1"},
}
PLAN = Plan(streams=4, posts=3, uploads=1, tokens=40, pause=1.0)
"""One generation at a time: what is asked for has to be what a CPU can answer in turn."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One host, converged with the model as its only one."""
    with lab_of_tests(os.environ.get("FARRIER_LAB", "test"), [HOST]) as lab:
        converge = Converge(lab, tmp_path_factory.mktemp("converge"))
        converge.everywhere = {"nginx_clients": "keys"}
        converge.models = {HOST: [MODEL]}
        run = converge(limit=[HOST], timeout=1200)
        assert run.returncode == 0, run.last_words(60)
        print(f"converged in {run.seconds:.0f} s")
        yield Fleet(lab, converge)


def test_a_converge_brings_it_and_the_second_changes_nothing(fleet: Fleet) -> None:
    assert fleet.gate(HOST)
    answer = fleet.chat(HOST, max_tokens=4)
    assert answer.status == 200
    assert answer.json()["usage"]["completion_tokens"] == 4
    assert fleet.chat(HOST, stream=True).text.endswith("data: [DONE]\n\n")
    again = fleet.converge(limit=[HOST])
    assert (again.returncode, again.changed(HOST)) == (0, []), again.last_words()


def test_it_runs_as_nobody_in_particular_on_loopback_only(fleet: Fleet) -> None:
    pid = fleet.unit(HOST, "engine-tiny", "MainPID")
    assert fleet.ssh(HOST, f"ps -o user:20= -p {pid}").strip() == "farrier-engine"
    listens = fleet.root(HOST, "ss -Hltnp | grep farrier_tr || ss -Hltnp | grep :8101").split()
    assert listens[3] == "127.0.0.1:8101"


def test_its_metrics_are_on_the_agents_page(fleet: Fleet) -> None:
    def tokens() -> float:
        lines = fleet.metrics(HOST).splitlines()
        name = "transformers:generation_tokens_total{"
        found = [line for line in lines if line.startswith(name)]
        assert len(found) <= 1
        return float(found[0].split()[-1]) if found else 0.0

    before = until(tokens, 60, "the engine's page was read")
    assert fleet.chat(HOST, max_tokens=30).status == 200
    until(lambda: tokens() >= before + 30, 60, "its tokens are counted")
    assert 'transformers:requests_waiting{replica="tiny"' in fleet.metrics(HOST)


def test_too_many_are_told_to_come_again_by_the_engine_itself(fleet: Fleet) -> None:
    few = {**MODEL, "args": {"max-waiting": 0}}
    run = fleet.converge(models={HOST: [few]}, limit=[HOST])
    assert run.returncode == 0, run.last_words()
    assert "replica tiny runs an older configuration" in run.last_section("Restart pending")
    fleet.root(HOST, "farrier-agent restart tiny --wait")
    with fleet.traffic(HOST, Plan(streams=1, posts=0, uploads=0, tokens=1500)) as traffic:
        at_work(traffic)
        full = fleet.chat(HOST)
        assert (full.status, full.headers["retry-after"]) == (503, "5")
        assert full.json()["error"]["code"] == "queue_full"
    back = fleet.converge(limit=[HOST])
    assert back.returncode == 0, back.last_words()
    fleet.root(HOST, "farrier-agent restart tiny --wait")


def drain(fleet: Fleet, traffic: Traffic) -> None:
    fleet.root(HOST, "farrier-agent drain tiny --wait")
    assert fleet.phase(HOST) == "drained"
    assert traffic.at_work("stream") == 0
    fleet.root(HOST, "farrier-agent ready tiny --wait")


def restart(fleet: Fleet, traffic: Traffic) -> None:
    fleet.root(HOST, "systemctl restart engine-tiny")


def verb(fleet: Fleet, traffic: Traffic) -> None:
    fleet.root(HOST, "farrier-agent restart tiny --wait")


def reboot(fleet: Fleet, traffic: Traffic) -> None:
    fleet.lab.reboot(HOST, patience=300)


@pytest.mark.parametrize("action", [drain, restart, verb, reboot], ids=lambda it: it.__name__)
def test_under_load_nothing_is_lost(fleet: Fleet, action: Callable[[Fleet, Traffic], None]) -> None:
    with fleet.traffic(HOST, PLAN) as traffic:
        at_work(traffic)
        action(fleet, traffic)
        until(lambda: fleet.gate(HOST), 300, "its gate is open again")
        opened = traffic.now
        until(lambda: traffic.of("whole", since=opened), 120, "it serves again")
    assert_nothing_lost(fleet, HOST, traffic, counted=False, listens=action is not reboot)
    assert traffic.of("refused"), "its gate was closed meanwhile"


def test_one_that_is_killed_comes_back_warm(fleet: Fleet) -> None:
    before = fleet.unit(HOST, "engine-tiny", "MainPID")
    fleet.root(HOST, f"kill -9 {before}")
    until(lambda: not fleet.gate(HOST), 30, "whatever ends it closes its gate")
    until(lambda: fleet.gate(HOST), 300, "systemd starts it, the agent warms it up")
    assert fleet.unit(HOST, "engine-tiny", "MainPID") not in {"0", before}
    assert fleet.chat(HOST).status == 200


def test_sigterm_of_its_unit_ends_it_in_order(fleet: Fleet) -> None:
    fleet.root(HOST, "systemctl stop engine-tiny")
    assert fleet.unit(HOST, "engine-tiny", "Result") == "success"
    assert fleet.unit(HOST, "engine-tiny", "ExecMainStatus") == "0"
    said = fleet.root(HOST, "journalctl -u engine-tiny -n 50 --no-pager -o cat")
    assert "ends: 0 running and 0 waiting" in said
    fleet.root(HOST, "systemctl start engine-tiny")
    until(lambda: fleet.gate(HOST), 300, "it serves again")


def test_a_model_that_cannot_be_served_so_is_told_with_its_reason(fleet: Fleet) -> None:
    fleet.root(HOST, "cp -r /srv/models/tiny /srv/models/odd; chmod -R a+rX /srv/models/odd")
    fleet.root(HOST, "cd /srv/models/odd && mv model.safetensors model.bin")
    odd = {**MODEL, "name": "odd", "source": "path:/srv/models/odd", "port": 8102}
    run = fleet.converge(models={HOST: [MODEL, {**odd, "start_timeout": 200}]}, limit=[HOST])
    assert run.returncode == 1
    assert "engine-odd.service" in run.stderr
    assert "/srv/models/odd could not be loaded" in run.stderr
    assert fleet.chat(HOST, "/replicas/tiny/v1/chat/completions").status == 200


def test_the_role_is_removed(fleet: Fleet) -> None:
    for role in ("engine", "transformers"):
        run = fleet.converge("--data", f"role={role}", deploy="deploys/remove.py", limit=[HOST])
        assert run.returncode == 0, run.last_words()
    assert fleet.root(HOST, "ls -d /opt/farrier/transformers", check=False) == ""
    again = fleet.converge("--data", "role=transformers", deploy="deploys/remove.py", limit=[HOST])
    assert (again.returncode, again.changed(HOST)) == (0, [])
