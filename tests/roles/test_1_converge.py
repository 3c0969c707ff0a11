"""Run twice, change nothing: the rule of every deploy, on every host of the lab."""

from tests.roles.converging import Converge
from tests.roles.fleet import Fleet


def test_a_second_run_changes_nothing_on_any_host(fleet: Fleet, converge: Converge) -> None:
    run = converge()
    assert run.returncode == 0, run.last_words()
    hosts = {host.name for host in fleet.lab.hosts}
    assert run.hosts == hosts
    assert {host: run.changed(host) for host in hosts} == {host: [] for host in hosts}
    assert all("Service" in run.unchanged(host)[-1] or run.unchanged(host) for host in hosts)
