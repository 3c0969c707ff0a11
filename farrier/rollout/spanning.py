"""What a rollout does not do to a host of a replica over several hosts. Pure.

A rollout drains what is on the host that it changes. Of such a replica only the head can be
drained, and a member that goes away takes the replica with it: so its host is left to a person, who
is told the order. Restarting the head's host, or rebooting it, is as for any other: its members
follow it.
"""

from __future__ import annotations

from collections.abc import Iterable

from farrier.fleet.target import Target
from farrier.rollout.errors import RefusedError
from farrier.rollout.plan import Kind

__all__ = ["refuse_spanning"]

_TAKES_UNITS: frozenset[Kind] = frozenset({"converge", "rollback"})
"""Those after which the units of a replica's hosts would differ, until all of them had it."""


def refuse_spanning(kind: Kind, hosts: Iterable[Target]) -> None:
    """Raise RefusedError where a rollout of this *kind* would break a replica over several hosts.

    *hosts* are those that it is about.
    """
    if kind == "restart":
        return
    for host in hosts:
        for one in host.replicas if kind in _TAKES_UNITS else ():
            if one.hosts:
                raise _by_hand(one.replica, host.name, one.hosts)
        for member in host.members:
            if kind in _TAKES_UNITS:
                raise _by_hand(member.replica, member.head, (member.head, host.name))
            raise RefusedError(
                f"{host.name} carries rank {member.rank} of replica {member.replica}, whose head is"
                f" on {member.head}: without it what {member.replica} serves would be cut\n"
                "  nothing was changed",
                f"farrier drain {member.head}/{member.replica}, then on {host.name} what is to be"
                f" done, then on {member.head}: sudo farrier-agent restart {member.replica};"
                f" or leave {host.name} out with --limit",
            )


def _by_hand(replica: str, head: str, hosts: tuple[str, ...]) -> RefusedError:
    return RefusedError(
        f"replica {replica} spans {' and '.join(hosts)}: its hosts take a new configuration"
        " together, and a rollout takes one host after the other\n  nothing was changed",
        "pyinfra inventory deploys/llm.py, which restarts nothing; then farrier rollout restart"
        f" --limit {head}, which its other hosts follow; or leave {' and '.join(hosts)} out with"
        " --limit",
    )
