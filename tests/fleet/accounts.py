"""Three accounts of the same requests: the clients', the engines' and the gateway's own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from farrier.load import Background, Endpoint, Ledger, Plan
from tests.fleet.site import Site
from tests.roles.fleet import until

__all__ = ["agree", "busy", "dropped", "load", "logged", "replicas"]


def load(site: Site, gateway: str, plan: Plan, *, tls: bool = False) -> Background:
    """*plan*, carried out through *gateway* while the block runs."""
    url = site.url(gateway)
    if tls:
        url = url.replace("http:", "https:")
    return Background(plan, Endpoint(url, {"everyone": site.key}, site.lab.ca if tls else None))


def busy(it: Background, requests: int = 20) -> None:
    """Return when so many more requests are complete."""
    before = len(it.ledger.of("complete"))
    until(lambda: len(it.ledger.of("complete")) >= before + requests, 60, "the load goes on")


def logged(
    site: Site, gateway: str, prefix: str, *, since: float = 0.0
) -> dict[str, list[Mapping[str, Any]]]:
    """What HAProxy's access log on *gateway* says of the requests whose names begin so.

    *since* (seconds of the epoch) spares reading what is older.
    """
    site.root(gateway, "journalctl --sync")
    found: dict[str, list[Mapping[str, Any]]] = {}
    text = site.root(
        gateway, f"journalctl -q -t haproxy -o cat -S @{since:.0f} | grep -F {prefix} || true"
    )
    for line in text.splitlines():
        entry = json.loads(line)
        found.setdefault(entry["request_id"], []).append(entry)
    return found


def dropped(site: Site, gateway: str) -> int:
    """Lines that HAProxy could not log, by its own count since it was started or reloaded."""
    info = site.root(gateway, "echo 'show info' | socat stdio /run/haproxy/admin.sock")
    values = dict(line.split(": ", 1) for line in info.splitlines() if ": " in line)
    return int(values["DroppedLogs"])


def agree(site: Site, gateway: str, ledger: Ledger, *also: str, unlogged: int = 0) -> None:
    """Nothing was lost or executed twice, and the three accounts tell the same.

    *also* are the outcomes that the test has caused, beside ``complete``. At most *unlogged* lines
    are missing in the gateway's log.
    """
    told = "\n".join(map(str, ledger.losses()[:10]))
    assert not ledger.lost, f"{ledger.lost} of {len(ledger.requests)} lost:\n{told}"
    strange = [str(one) for one in ledger.requests if one.outcome not in {"complete", *also}]
    assert not strange, strange[:10]
    assert ledger.of("complete")
    faults = ledger.faults(site.executed(ledger.prefix))
    assert not faults, faults[:10]
    log = logged(site, gateway, ledger.prefix, since=ledger.started.timestamp() - 1)
    missing = []
    for one in ledger.requests:
        lines = log.pop(one.name, [])
        least = int(one.outcome != "unreached")
        # A stream that HTTP/2 refused was sent again, and need not be in the log.
        assert len(lines) <= least + one.repeats, (str(one), lines)
        if len(lines) < least:
            missing.append(str(one))
        elif one.outcome in {"complete", "refused"}:
            assert lines[-1]["status"] == one.status, (str(one), lines)
    assert len(missing) <= unlogged, (len(missing), missing[:10])
    # What /v1/models was asked before the first request bears the prefix alone.
    assert log.keys() <= {ledger.prefix}


def replicas(log: Mapping[str, list[Mapping[str, Any]]]) -> Counter[str]:
    """How many requests went to each replica, by the gateway's log."""
    return Counter(lines[-1]["replica"] for lines in log.values())
