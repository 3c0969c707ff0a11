"""A rollout as its operator's side has it: a lease of the tests' host, and what it asks with it."""

from __future__ import annotations

import json
from typing import Any

from farrier_agent.control.protocol import Act, Drain, Final, Lease, Leased, Ready, Result

from tests.agent.asking import Asking
from tests.agent.host import Host
from tests.agent.replicas import result

__all__ = ["ID", "Rollout", "audit", "kept"]

ID = "r-20261122-0110-x7"


class Rollout:
    """The rollout *name* of *holder*, which has taken the lease of *host*.

    For ten minutes: no busy machine lets it run out before its test wants that.
    """

    def __init__(
        self, host: Host, name: str = ID, holder: str = "alice@laptop", **fields: Any
    ) -> None:
        self.host = host
        self.name = name
        self.holder = holder
        self.token = self.take(**fields).token

    def take(self, **fields: Any) -> Leased:
        asked = {"seconds": 600.0} | fields
        final = self.host.ask(Lease(action="take", rollout=self.name, holder=self.holder, **asked))
        assert isinstance(final, Leased), final
        self.token = final.token
        return final

    def lease(self, action: Any, **fields: Any) -> Final:
        return self.host.ask(Lease(action=action, token=self.token, **fields))

    def falls_asleep(self) -> None:
        """Its lease is over in a moment, and nobody renews it."""
        assert isinstance(self.lease("renew", seconds=0.3), Leased)

    def act(self, action: Any, *replicas: str, **fields: Any) -> Final:
        return self.host.ask(Act(action=action, token=self.token, replicas=replicas, **fields))

    def acting(self, action: Any, *replicas: str, **fields: Any) -> Asking:
        return self.host.asking(Act(action=action, token=self.token, replicas=replicas, **fields))

    def drain(self, *replicas: str, **fields: Any) -> Result:
        names = replicas or ("tiny",)
        return result(self.host.ask(Drain(replicas=names, token=self.token, wait=True, **fields)))

    def ready(self, *replicas: str, **fields: Any) -> Result:
        names = replicas or ("tiny",)
        return result(self.host.ask(Ready(replicas=names, token=self.token, wait=True, **fields)))


def audit(host: Host) -> list[dict[str, Any]]:
    """What the audit has, oldest first."""
    lines = (host.rollout / "audit.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def kept(host: Host) -> dict[str, Any]:
    """The lease and the mark as they are on the disk."""
    state: dict[str, Any] = json.loads((host.rollout / "lease.json").read_text())
    return state
