"""Proof that both rivals make, and look at, the same end state.

Everything that Farrier's roles ask for is spoiled at once: every file's content, every file's and
directory's mode, every link, what has to be absent, a package of every role, every unit but the
engines (stopped and disabled; engines only disabled, a stop would measure their start), and the
agent's environment. Then one of them repairs it and the other one has to find nothing to do; and
the other way round.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from farrier.lab import Lab
from tests.bench.ansible_side import Playbook
from tests.bench.farrier_side import Converge
from tests.bench.runs import RunFailedError
from tests.bench.wanted import Wanted

__all__ = ["prove", "spoil"]

REMOVED = ("prometheus-node-exporter", "python3-systemd")
"""Packages that are taken away: nothing else depends on them."""


def prove(
    lab: Lab,
    wanted: Mapping[str, Wanted],
    farrier: Converge,
    ansible: Playbook,
    say: Callable[[str], None],
) -> list[str]:
    """Both ways round; one sentence per step. Raises RunFailedError where they do not agree."""
    sentences = []
    for repairer, repair, changes, judge, look in (
        ("the playbook", ansible.run, ansible.changes, "Farrier", farrier.run_unchanged),
        (
            "Farrier",
            farrier.run,
            lambda output: farrier.changes(output)[0],
            "the playbook",
            ansible.run_unchanged,
        ),
    ):
        spoiled = spoil(lab, wanted)
        changed = changes(repair().output)
        if changed != sorted(wanted):
            raise RunFailedError(f"{repairer} repaired {changed} of {sorted(wanted)}")
        look()
        sentence = (
            f"{spoiled} things spoiled on {len(wanted)} hosts, repaired by {repairer};"
            f" {judge} then found nothing to change"
        )
        say(sentence)
        sentences.append(sentence)
    return sentences


def spoil(lab: Lab, wanted: Mapping[str, Wanted]) -> int:
    """Spoil all of it on every host; how many things that were."""
    scripts = {host.host: list(_spoiled(host)) for host in wanted.values()}

    def on(host: str) -> int:
        lab.ssh(host, "sudo sh -eu", "\n".join(scripts[host]) + "\n")
        return len(scripts[host])

    with ThreadPoolExecutor() as pool:
        return sum(pool.map(on, scripts))


def _spoiled(host: Wanted) -> Iterator[str]:
    """One shell line per thing."""
    for unit in host.units:
        stop = "" if unit.startswith("engine-") else "--now "
        yield f"systemctl disable -q {stop}{shlex.quote(unit)}"
    for package in REMOVED:
        yield f"dpkg --force-depends -r {package} >/dev/null 2>&1"
    for file in host.files:
        yield f"echo '# spoiled' >> {shlex.quote(file.path)}"
        yield f"chmod 640 {shlex.quote(file.path)}"
    for path in host.directories:
        if path != "/var/lib/farrier/applied":  # Farrier's own notes, not part of the end state
            yield f"chmod 711 {shlex.quote(path)}"
    for path in host.links:
        yield f"ln -sfn /nowhere {shlex.quote(path)}"
    for path in host.absent:
        yield f"ln -sfn /etc/nginx/nginx.conf {shlex.quote(path)}"
    for environment in host.environments:
        if environment.thing == "agent":
            yield f"rm {environment.path}/.complete"
            yield f"ln -sfn elsewhere /opt/farrier/{environment.thing}/current"
