"""Runs that were killed half-way: whatever they left, the next one repairs it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, until
from tests.roles.outcomes import AGENTS, VICTIM, agent_disk, assert_repaired, said, with_data


def killed(process: subprocess.Popen[str]) -> None:
    """SIGKILL: nothing of it gets a chance to tidy up."""
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


@pytest.fixture
def empty_disk(fleet: Fleet) -> Iterator[None]:
    """No agent is installed on the victim, as far as a run can see."""
    with agent_disk(fleet):
        yield


@pytest.mark.usefixtures("empty_disk")
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
        # nginx answers a reload before its last old worker has stopped accepting.
        until(lambda: change.seen(fleet) != before, 20, f"{change.words} is seen")
    finally:
        converge(limit=[VICTIM])
    assert_repaired(fleet)
