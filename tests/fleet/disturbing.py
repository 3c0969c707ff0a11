"""What is done to a fleet while it serves: hosts held drained, checks that are lost, power cuts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.fleet.site import Site
from tests.roles.fleet import until

__all__ = ["down", "drained", "lose_power", "lost_checks"]

CHECK_PORT = 9811
"""Where agents answer HAProxy's agent-check (the inventory's agent_check_port)."""


@contextmanager
def drained(site: Site, host: str, *, frozen: bool = False) -> Iterator[None]:
    """*host*'s replica of tiny drained; *frozen*: and then its agent stopped by SIGSTOP."""
    site.root(host, "farrier-agent drain tiny --wait")
    try:
        if frozen:
            site.root(host, "systemctl kill -s STOP --kill-whom=main farrier-agent")
        yield
    finally:
        if frozen:
            site.root(host, "systemctl kill -s CONT --kill-whom=main farrier-agent")
        until(lambda: site.status(host), 30, f"the agent of {host} answers")
        site.root(host, "farrier-agent ready tiny --wait")
        until(lambda: site.ready(host), 60, f"{host} serves again")


@contextmanager
def lost_checks(site: Site, gateway: str, *, agents: bool = False) -> Iterator[None]:
    """Every ``GET /farrier-alive`` that *gateway* sends is dropped on its way, and nothing else.

    *agents*: and whatever it sends to the hosts' agents.
    """
    site.root(gateway, "command -v nft || apt-get -qq -y install nftables >/dev/null")
    start = b"GET /farrier-ali"
    site.root(
        gateway,
        "nft add table inet blind;"
        ' nft "add chain inet blind out { type filter hook output priority 0; }";'
        f" nft add rule inet blind out meta l4proto tcp @ih,0,128 0x{start.hex()} counter drop",
    )
    if agents:
        site.root(gateway, f"nft add rule inet blind out tcp dport {CHECK_PORT} drop")
    try:
        yield
        assert "packets 0" not in site.root(gateway, "nft list table inet blind")
    finally:
        site.root(gateway, "nft delete table inet blind")


def down(site: Site, gateway: str) -> int:
    """How many servers' HTTP check has failed, of those that have one."""
    return sum(row[17] == "DOWN" and "L7" in row[36] for row in site.servers(gateway))


def lose_power(site: Site, host: str) -> None:
    """Cut *host*'s power: nothing of it says farewell, and nothing of it answers any more."""
    site.lab.link(host, up=False)  # or its kernel would end every connection in good order
    site.lab.kill(host)
