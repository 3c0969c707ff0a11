"""What the agent's user may ask of systemd on real hosts, and what it may not."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from farrier.spec import HostSpec, Model
from roles.agent import RULES, rules_text
from tests.roles.fleet import Fleet, until

HOSTS = ("gpu02", "gpu03")
"""Debian 12 and 13, whose systemds and polkits differ."""
EVIDENCE = "/var/lib/farrier/evidence"
OTHER = "engine-other.service"
EVIL = "/run/made-by-root"
MANAGER = (
    "busctl --system call org.freedesktop.systemd1 /org/freedesktop/systemd1"
    " org.freedesktop.systemd1.Manager"
)
REFUSED = ("Interactive authentication required", "Access denied", "is not authorized")


def asked(fleet: Fleet, host: str, *words: str, user: str = "farrier-agent") -> str:
    """What systemd answers *user*: a job's path, or an error."""
    call = f"runuser -u {user} -- {MANAGER} {shlex.join(words)} 2>&1"
    return fleet.root(host, call, check=False).strip()


def transient(unit: str) -> tuple[str, ...]:
    """The words that make a unit up on the spot, whose program would run as root."""
    program = ("ExecStart", "a(sasb)", "1", "/bin/touch", "2", "/bin/touch", EVIL, "false")
    return ("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", "1", *program, "0")


@pytest.fixture(scope="module", params=HOSTS)
def host(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[str]:
    """A host with an engine unit that is none of the inventory's."""
    name: str = request.param
    unit = "[Service]\nExecStart=/bin/sleep infinity\n"
    fleet.put(name, f"/run/systemd/system/{OTHER}", unit)
    fleet.root(name, f"systemctl daemon-reload; rm -f {EVIL}")
    yield name
    fleet.root(name, f"systemctl stop {OTHER}; rm -f /run/systemd/system/{OTHER} {EVIL}")
    fleet.root(name, "systemctl daemon-reload")


def test_it_may_stop_start_and_restart_the_hosts_replicas(fleet: Fleet, host: str) -> None:
    unit = "engine-tiny.service"
    runs = {fleet.unit(host, unit, "InvocationID")}
    for method, state in (
        ("StopUnit", "inactive"),
        ("StartUnit", "active"),
        ("RestartUnit", "active"),
    ):
        assert asked(fleet, host, method, "ss", unit, "replace").startswith("o "), method
        until(
            lambda state=state: (  # type: ignore[misc]
                fleet.unit(host, unit, "ActiveState") == state
                and fleet.unit(host, unit, "Job") in {"", "0"}
            ),
            60,
            f"{unit} is {state} after {method}",
        )
        runs.add(fleet.unit(host, unit, "InvocationID"))
    assert len(runs - {""}) >= 3
    until(lambda: fleet.gate(host), 60, "it serves again")


def test_it_may_have_evidence_kept(fleet: Fleet, host: str) -> None:
    before = fleet.root(host, f"ls {EVIDENCE}").split()
    unit = "farrier-evidence@tiny.service"
    assert asked(fleet, host, "StartUnit", "ss", unit, "replace").startswith("o ")
    until(lambda: fleet.root(host, f"ls {EVIDENCE}").split() != before, 30, "evidence is kept")


FORBIDDEN: dict[str, tuple[str, ...]] = {
    "nginx": ("StopUnit", "ss", "nginx.service", "replace"),
    "sshd": ("RestartUnit", "ss", "ssh.service", "replace"),
    "itself": ("StopUnit", "ss", "farrier-agent.service", "replace"),
    "an engine of nobody": ("StartUnit", "ss", OTHER, "replace"),
    "evidence of nobody": ("StartUnit", "ss", "farrier-evidence@other.service", "replace"),
    "the end of evidence": ("StopUnit", "ss", "farrier-evidence@tiny.service", "replace"),
    "a signal": ("KillUnit", "ssi", "engine-tiny.service", "all", "9"),
    "a property": (
        *("SetUnitProperties", "sba(sv)", "engine-tiny.service", "true"),
        *("1", "CPUWeight", "t", "10"),
    ),
    "a reload": ("ReloadUnit", "ss", "engine-tiny.service", "replace"),
    "a try": ("TryRestartUnit", "ss", "engine-tiny.service", "replace"),
    "ice": ("FreezeUnit", "s", "engine-tiny.service"),
    "files": ("EnableUnitFiles", "asbb", "1", "engine-tiny.service", "false", "false"),
    "a mask": ("MaskUnitFiles", "asbb", "1", "nginx.service", "true", "false"),
    "systemd's own files": ("Reload",),
    "the host": ("Reboot",),
    "a unit made up": transient("engine-made-up.service"),
    "evidence made up": transient("farrier-evidence@made.service"),
    "a scope": ("StartTransientUnit", "ssa(sv)a(sa(sv))", "a.scope", "replace", "0", "0"),
}


@pytest.mark.parametrize("words", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_it_may_not(fleet: Fleet, host: str, words: tuple[str, ...]) -> None:
    before = fleet.unit(host, "engine-tiny", "InvocationID")
    said = asked(fleet, host, *words)
    assert any(word in said for word in REFUSED), said
    assert fleet.unit(host, "engine-tiny", "InvocationID") == before
    assert fleet.unit(host, OTHER, "ActiveState") == "inactive"
    assert fleet.root(host, f"ls {EVIL}", check=False) == ""


@pytest.mark.parametrize(
    "words",
    [transient("engine-tiny.service"), ("StartUnit", "ss", "engine-tiny.service", "isolate")],
    ids=["made up over its file", "and nothing else"],
)
def test_a_replicas_unit_cannot_be_turned_against_the_host(
    fleet: Fleet, host: str, words: tuple[str, ...]
) -> None:
    """Whoever refuses it, polkit or systemd itself: nothing runs, and nothing ends."""
    said = asked(fleet, host, *words)
    assert not said.startswith("o "), said
    assert fleet.root(host, f"ls {EVIL}", check=False) == ""
    assert fleet.unit(host, "nginx", "ActiveState") == "active"


def test_others_may_not_what_it_may(fleet: Fleet, host: str) -> None:
    before = fleet.unit(host, "engine-tiny", "InvocationID")
    words = ("RestartUnit", "ss", "engine-tiny.service", "replace")
    said = asked(fleet, host, *words, user="www-data")
    assert any(word in said for word in REFUSED), said
    assert fleet.unit(host, "engine-tiny", "InvocationID") == before


def test_a_changed_rule_counts_at_once_and_a_name_without_a_file_is_no_way_in(
    fleet: Fleet, host: str
) -> None:
    """As after a converge with another replica, of which the unit is not there (any more)."""
    ghost = "engine-ghost.service"
    start = ("StartUnit", "ss", ghost, "replace")
    rule = rules_text(HostSpec("x", groups=("gpu",), models=(Model("ghost", gpus=[]),)))
    more = RULES.replace("50-", "51-")
    assert any(word in asked(fleet, host, *start) for word in REFUSED)
    fleet.put(host, more, rule)
    try:
        until(lambda: "not found" in asked(fleet, host, *start), 10, "polkit has read the rule")
        said = asked(fleet, host, *transient(ghost))
        assert any(word in said for word in REFUSED), said
        assert fleet.root(host, f"ls {EVIL}", check=False) == ""
    finally:
        fleet.root(host, f"rm -f {more}")
    until(
        lambda: any(word in asked(fleet, host, *start) for word in REFUSED), 10, "and its absence"
    )


def test_evidence_is_roots_alone_and_says_why(fleet: Fleet, host: str) -> None:
    """The agent sees that it is there; what is in it is an engine's memory and environment."""
    why = "no progress for 25 s with 7 requests in flight"
    path = "/run/farrier/agent/evidence-tiny"
    fleet.root(host, f"runuser -u farrier-agent -- sh -c 'echo {why} > {path}'")
    fleet.root(host, "systemctl start farrier-evidence@tiny")
    newest = f"$(ls -t {EVIDENCE}/tiny-*.tar.gz | head -n 1)"
    assert fleet.root(host, f"stat -c '%a %U %G' {newest}") == "600 root root\n"
    assert fleet.root(host, f"runuser -u farrier-agent -- ls {EVIDENCE}").startswith("tiny-")
    read = f"runuser -u farrier-agent -- cat {newest}"
    assert fleet.root(host, f"{read} 2>/dev/null", check=False) == ""
    manifest = fleet.root(host, f"tar -xzO --wildcards -f {newest} '*/manifest.json'")
    assert f'"why": "{why}"' in manifest
    # what nobody but root can read of another user's process, in a unit that may little else
    assert "values of secret environment variables are taken out" in manifest
    stacks = fleet.root(host, f"tar -xzO --wildcards -f {newest} '*/stacks.txt'")
    assert "not permitted to read" not in stacks
    assert "[<0>]" in stacks
    fleet.root(host, f"rm -f {path}; ln -s /etc/shadow {path}")
    fleet.root(host, f"systemctl start farrier-evidence@tiny; rm -f {path}")
    manifest = fleet.root(host, f"tar -xzO --wildcards -f {newest} '*/manifest.json'")
    assert '"why": "asked for by hand"' in manifest
