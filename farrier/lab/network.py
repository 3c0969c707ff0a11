"""The lab's network: a bridge, a masquerade, and ``net.ipv4.ip_forward`` while any lab is up."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from farrier.lab.commands import run, succeeds
from farrier.lab.definitions import LABS, LabDefinition
from farrier.lab.errors import LabError
from farrier.lab.state import STATE, locked, read_json, write_private

__all__ = [
    "bridge_exists",
    "interface_exists",
    "lower",
    "raise_network",
    "refuse_dropped_forward",
    "uplink_mtu",
]

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
REMEMBERED = STATE / "ip_forward.json"
LOCK = STATE / "ip_forward.lock"


def uplink_mtu() -> int:
    """The MTU of the interface with the default route, bytes; 1500 without one.

    Guests get the same: behind a smaller one (tunnels, clouds) their larger packets would vanish.
    """
    for route in json.loads(run(["ip", "-4", "-json", "route", "show", "default"]) or "[]"):
        links = json.loads(run(["ip", "-json", "link", "show", route["dev"]]))
        return int(links[0]["mtu"])
    return 1500


def bridge_exists(lab: LabDefinition) -> bool:
    """Whether the bridge of *lab* is there."""
    return interface_exists(lab.bridge)


def interface_exists(name: str) -> bool:
    """Whether this machine has an interface called *name*."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def raise_network(lab: LabDefinition) -> None:
    """Make the bridge, the masquerade and forwarding, or repair what is left of them."""
    refuse_dropped_forward(lab)
    if not bridge_exists(lab):
        run(["ip", "link", "add", lab.bridge, "type", "bridge"])
    address = f"{lab.gateway}/{lab.network.prefixlen}"
    run(["ip", "address", "replace", address, "dev", lab.bridge])
    run(["ip", "link", "set", lab.bridge, "mtu", str(uplink_mtu()), "up"])
    for host in lab.hosts:  # machines that outlived their bridge
        veth = lab.veth(host.name)
        try:
            if interface_exists(veth):
                run(["ip", "link", "set", veth, "master", lab.bridge])
        except LabError:
            # A machine that was killed: the kernel takes its cable away in its own time.
            if interface_exists(veth):
                raise
    run(["nft", "-f", "-"], input=masquerade(lab))
    _forward(True)


def masquerade(lab: LabDefinition) -> str:
    """An nft script that makes the lab's table anew, whether or not there is one."""
    return f"""table ip {lab.nft_table} {{}}
delete table ip {lab.nft_table}
table ip {lab.nft_table} {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {lab.network} ip daddr != {lab.network} masquerade
    }}
}}
"""


def lower(lab: LabDefinition) -> None:
    """Remove all of the lab's network; with the last lab forwarding becomes what it was."""
    if bridge_exists(lab):
        run(["ip", "link", "delete", lab.bridge])
    if succeeds(["nft", "list", "table", "ip", lab.nft_table]):
        run(["nft", "delete", "table", "ip", lab.nft_table])
    _forward(False)


def _forward(wanted: bool) -> None:
    """Switch forwarding on, remembering what was; or back, once no lab's bridge is left."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    with locked(LOCK):
        remembered = read_json(REMEMBERED)
        if remembered and remembered.get("boot_id") != boot:
            remembered = None  # this machine rebooted: the kernel forgot with it
        now = IP_FORWARD.read_text("ascii").strip()
        if wanted:
            if remembered is None:
                remembered = {"boot_id": boot, "ip_forward": now}
                write_private(REMEMBERED, json.dumps(remembered) + "\n")
            _write_forward("1")
        elif not any(bridge_exists(lab) for lab in LABS.values()):
            if remembered:
                _write_forward(str(remembered["ip_forward"]))
            REMEMBERED.unlink(missing_ok=True)


def _write_forward(value: str) -> None:
    # A write that changes it resets per-interface parameters (ip-sysctl.rst), so not without need.
    if IP_FORWARD.read_text("ascii").strip() != value:
        IP_FORWARD.write_text(value, "ascii")


def refuse_dropped_forward(lab: LabDefinition) -> None:
    """Raise :class:`LabError` where a firewall drops what the hosts send through this machine.

    Docker sets the policy of ``filter FORWARD`` to drop, and an accept in a table of ours cannot
    overrule a drop in another (nft(8), base chains): only a rule in that very chain can.
    """
    listing = run(["nft", "--json", "list", "ruleset"])
    items = json.loads(listing)["nftables"] if listing.strip() else []
    chains = [item["chain"] for item in items if "chain" in item]
    rules = [item["rule"] for item in items if "rule" in item]
    for chain in chains:
        if chain.get("hook") != "forward" or chain.get("policy") != "drop":
            continue
        if not _mentions(rules, chain, lab.bridge):
            raise LabError(
                f"lab {lab.name}: a firewall on this machine drops forwarded packets (nft chain "
                f"{chain['family']} {chain['table']} {chain['name']}, policy drop), so the hosts "
                "could reach no package archive\n  run: " + _permission(chain, chains, lab.bridge)
            )
    if "filter" in _legacy_tables():
        legacy = run(["iptables-legacy", "--wait", "-S"])
        if "-P FORWARD DROP" in legacy and f" {lab.bridge} " not in legacy:
            chain_name = "DOCKER-USER" if "-N DOCKER-USER" in legacy else "FORWARD"
            raise LabError(
                f"lab {lab.name}: iptables-legacy drops forwarded packets (filter FORWARD, policy "
                "DROP), so the hosts could reach no package archive\n  run: "
                + _iptables("iptables-legacy", chain_name, lab.bridge)
            )


def _legacy_tables() -> list[str]:
    # Asking iptables-legacy itself would load its kernel modules.
    names = Path("/proc/net/ip_tables_names")
    return names.read_text("ascii").split() if names.exists() else []


def _mentions(rules: list[dict[str, Any]], chain: dict[str, Any], bridge: str) -> bool:
    """Whether a rule in the table of *chain* accepts packets from *bridge*."""
    table = (chain["family"], chain["table"])
    for rule in rules:
        if (rule["family"], rule["table"]) != table:
            continue
        words = json.dumps(rule["expr"])
        if f'"{bridge}"' in words and '"accept"' in words and '"iifname"' in words:
            return True
    return False


def _permission(chain: dict[str, Any], chains: list[dict[str, Any]], bridge: str) -> str:
    """The command after which the chain lets *bridge* through."""
    if (chain["family"], chain["table"], chain["name"]) == ("ip", "filter", "FORWARD"):
        in_table = [other["name"] for other in chains if other["table"] == "filter"]
        name = "DOCKER-USER" if "DOCKER-USER" in in_table else "FORWARD"
        return _iptables("iptables", name, bridge)
    where = f"{chain['family']} {chain['table']} {chain['name']}"
    return " && ".join(
        f"nft insert rule {where} {way} {bridge} accept" for way in ("iifname", "oifname")
    )


def _iptables(program: str, chain: str, bridge: str) -> str:
    return (
        f"{program} -I {chain} -i {bridge} -j ACCEPT && {program} -I {chain} -o {bridge} -j ACCEPT"
    )
