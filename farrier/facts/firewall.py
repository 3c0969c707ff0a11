"""What a host's firewall lets in, as far as its rules can be read. Pure, but for the script."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["FIREWALL", "Firewall", "parse_firewall"]


@dataclass(frozen=True, slots=True)
class Firewall:
    """What is let in. *kind* is who configured it: ``ufw``, ``nftables``, ``iptables`` or "".

    *open_ports* are TCP ports that some rule accepts, from wherever; *trusted* are networks and
    interfaces (not the loopback) from which everything is accepted.
    """

    kind: Literal["ufw", "nftables", "iptables", ""] = ""
    drops_by_default: bool = False
    open_ports: frozenset[int] = frozenset()
    trusted: tuple[str, ...] = ()


# iptables-save and not iptables -S, which would load modules for tables that nobody uses.
FIREWALL = r"""
grep -hsE '^(ENABLED|DEFAULT_INPUT_POLICY)=' "$ETC/ufw/ufw.conf" "$ETC/default/ufw" |
    sed 's/^/ufw /'
grep -hsE '^### tuple ###' "$ETC/ufw/user.rules" "$ETC/ufw/user6.rules" | sed 's/^### /ufw /'
has iptables-save && iptables-save 2>/dev/null |
    grep -E '^(\*|:INPUT |-A INPUT |-A .* --dports? .*-j ACCEPT)' | sed 's/^/iptables /'
has nft && nft -j list ruleset 2>/dev/null | sed 's/^/nft /'
"""

_WIDEST = 4096
"""Ports of a range that are listed one by one; a wider one is as good as trust in everybody."""


def parse_firewall(output: Sequence[str]) -> Firewall:
    """Parse lines ``ufw …``, ``iptables …`` and ``nft …``; who is on top says what counts.

    ufw makes iptables rules, and iptables is often nftables underneath: so ufw is looked at first,
    then iptables, then nftables. What lets everything in (fail2ban's rules, or what ufw left
    behind) stands in nobody's way: one that drops counts before it.
    """
    said: dict[str, list[str]] = {"ufw": [], "iptables": [], "nft": []}
    for line in output:
        kind, _, rest = line.partition(" ")
        if kind in said:
            said[kind].append(rest)
    if by_ufw := _ufw(said["ufw"]):
        return by_ufw
    found = [one for one in (_iptables(said["iptables"]), _nftables("\n".join(said["nft"]))) if one]
    return next((one for one in found if one.drops_by_default), (found or [Firewall()])[0])


def _ports(text: str) -> frozenset[int]:
    """``22``, ``80,443``, ``8000:8100``; ranges that are too wide are left out."""
    ports: set[int] = set()
    for part in text.split(","):
        if match := re.fullmatch(r"([0-9]{1,5})(?:[:-]([0-9]{1,5}))?", part.strip()):
            first, last = int(match[1]), int(match[2] or match[1])
            if last - first <= _WIDEST:
                ports.update(range(first, last + 1))
    return frozenset(ports)


_ANYWHERE = {"0.0.0.0/0", "::/0", "any"}


def _ufw(lines: Sequence[str]) -> Firewall | None:
    """Settings, and lines ``tuple ### allow tcp 22 0.0.0.0/0 any 10.0.0.0/8 in``."""
    settings = {
        name: value.strip("\"'")
        for name, _, value in (line.partition("=") for line in lines if "=" in line)
    }
    if settings.get("ENABLED", "").lower() != "yes":
        return None
    ports: frozenset[int] = frozenset()
    trusted = []
    for line in lines:
        match line.split():
            case ["tuple", "###", action, protocol, port, _, "any", source, *_, direction]:
                if not action.startswith(("allow", "limit")) or not direction.startswith("in"):
                    continue
                interface = direction.partition("_")[2]
                if port == "any":
                    who = interface if source in _ANYWHERE else source
                    trusted += [who] if who and protocol == "any" else []
                elif protocol in {"tcp", "any"}:
                    ports |= _ports(port)
    drops = settings.get("DEFAULT_INPUT_POLICY", "DROP").upper() != "ACCEPT"
    return Firewall("ufw", drops, ports, tuple(dict.fromkeys(trusted)))


_FORWARDED = re.compile(r"^-A (FORWARD|OUTPUT|DOCKER\S*) | -o ")


def _iptables(lines: Sequence[str]) -> Firewall | None:
    """Lines of iptables-save; only the filter table's INPUT, and who accepts ports for it."""
    drops, seen = False, False
    ports: frozenset[int] = frozenset()
    trusted = []
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line[1:]
        if table not in {"filter", ""}:
            continue
        if line.startswith(":INPUT "):
            drops = drops or line.split()[1:2] == ["DROP"]
        if line.startswith("-A INPUT "):
            seen = True
        rule = re.sub(r" -m \w+| --comment (\"[^\"]*\"|\S+)", "", line)
        if match := re.search(r" -p tcp\b.* --dports? (\S+)", rule):
            # Other chains count, as INPUT may jump there, but not those of forwarded packets.
            if line.endswith("-j ACCEPT") and not _FORWARDED.search(rule):
                ports |= _ports(match[1])
        elif match := re.fullmatch(r"-A INPUT -[si] (\S+) -j ACCEPT", rule):
            trusted += [match[1]] if match[1] != "lo" else []
        elif re.fullmatch(r"-A INPUT -j (DROP|REJECT)( .*)?", rule):
            drops = True
    if not (drops or seen):
        return None
    return Firewall("iptables", drops, ports, tuple(dict.fromkeys(trusted)))


def _nftables(text: str) -> Firewall | None:
    """``nft -j list ruleset`` (libnftables-json(5))."""
    try:
        items = json.loads(text)["nftables"]
    except (ValueError, KeyError, TypeError):
        return None
    chains = list(_of(items, "chain"))
    inputs = [one for one in chains if one.get("hook") == "input" and one.get("type") == "filter"]
    if not inputs:
        return None
    elsewhere = {_name(one) for one in chains if one.get("hook") not in {None, "input"}}
    entrances = {_name(one) for one in inputs}
    sets = {
        (one.get("family"), one.get("table"), one.get("name")): one.get("elem", [])
        for one in _of(items, "set")
    }
    drops = any(one.get("policy") == "drop" for one in inputs)
    ports: frozenset[int] = frozenset()
    trusted: list[str] = []
    for rule in _of(items, "rule"):
        chain = (rule.get("family"), rule.get("table"), rule.get("chain"))
        expressions = [part for part in rule.get("expr", []) if isinstance(part, dict)]
        verdicts = {key for part in expressions for key in part} & {"accept", "drop", "reject"}
        matches = [part["match"] for part in expressions if isinstance(part.get("match"), dict)]
        if chain in elsewhere:
            continue
        if "accept" in verdicts:
            for match in matches:
                ports |= _tcp_ports(match, sets, chain[:2])
            if len(matches) == 1 and (who := _who(matches[0])):
                trusted.append(who)
        elif verdicts and not matches and chain in entrances:
            drops = True
    return Firewall("nftables", drops, ports, tuple(dict.fromkeys(trusted)))


def _of(items: Any, kind: str) -> Iterator[Mapping[str, Any]]:
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and isinstance(item.get(kind), dict):
            yield item[kind]


def _name(chain: Mapping[str, Any]) -> tuple[Any, ...]:
    return chain.get("family"), chain.get("table"), chain.get("name")


def _tcp_ports(
    match: Mapping[str, Any], sets: Mapping[tuple[Any, ...], Any], table: tuple[Any, ...]
) -> frozenset[int]:
    payload = match.get("left")
    payload = payload.get("payload") if isinstance(payload, dict) else None
    if not isinstance(payload, dict) or payload.get("field") != "dport":
        return frozenset()
    if payload.get("protocol") not in {"tcp", "th"} or match.get("op") == "!=":
        return frozenset()
    right = match.get("right")
    if isinstance(right, str) and right.startswith("@"):
        right = {"set": sets.get((*table, right[1:]), [])}
    values = right.get("set", [right]) if isinstance(right, dict) else [right]
    ports: frozenset[int] = frozenset()
    for value in values if isinstance(values, list) else [values]:
        match value:
            case {"range": [first, last]}:
                ports |= _ports(f"{first}-{last}")
            case int() | str():
                ports |= _ports(str(value))
    return ports


def _who(match: Mapping[str, Any]) -> str:
    """The network or the interface of a rule that accepts everything from there, or ""."""
    if match.get("op") == "!=":
        return ""
    match match:
        case {"left": {"meta": {"key": "iifname" | "iif"}}, "right": str(interface)}:
            return interface if interface != "lo" else ""
        case {"left": {"payload": {"field": "saddr"}}, "right": str(address)}:
            return address
        case {
            "left": {"payload": {"field": "saddr"}},
            "right": {"prefix": {"addr": address, "len": length}},
        }:
            return f"{address}/{length}"
    return ""
