"""The system, disks, ports and models."""

from __future__ import annotations

from dataclasses import replace

from farrier.facts.machine import Firewall
from farrier.preflight.basics import Disk, ModelFound
from tests.unit.preflight_hosts import (
    QWEN,
    SPEC,
    case,
)
from tests.unit.preflight_rows.parts import (
    Row,
    copied,
    disks,
    listening,
)

DRAFT = '{"model": "/srv/models/draft", "num_speculative_tokens": 4}'
SPECULATIVE = replace(QWEN, args={"speculative-config": DRAFT})

ROWS = {
    # System, disks, ports
    "another distribution": Row(
        case(basics={"system": "fedora 43"}),
        "refused",
        "os-unsupported",
        "reinstall gpu01 with Debian 12 or 13, or Ubuntu 22.04 or 24.04; farrier preflight gpu01",
        "operator",
    ),
    "no room for packages": Row(
        case(basics=disks(var=Disk(12, 90_000, "/var"))),
        "refused",
        "disk-full",
        "apt-get clean; journalctl --vacuum-size=200M",
    ),
    "no room for the engine's environment": Row(
        case(basics=disks(opt=Disk(9_000, 900_000, "/opt"))),
        "refused",
        "disk-too-small",
        "apt-get clean; journalctl --vacuum-size=200M; du -xsm /opt/* /opt/farrier/*/* | sort -n",
    ),
    "no inodes": Row(
        case(basics=disks(opt=Disk(90_000, 120, "/opt"))),
        "refused",
        "inodes-gone",
        "du -x --inodes /opt | sort -n | tail -n 20",
    ),
    "a foreign unit on nginx's port": Row(
        case(basics=listening(8080, "caddy.service")),
        "refused",
        "port-taken",
        "systemctl disable --now caddy.service",
    ),
    "somebody's process on an engine's port": Row(
        case(basics=listening(8101, "session-3.scope")), "refused", "port-taken", "kill 4711"
    ),
    "ufw without nginx's port": Row(
        case(machine={"firewall": Firewall("ufw", True, frozenset({22, 9100, 9810, 9811}))}),
        "attention",
        "firewall-drops",
        "ufw allow 8080/tcp",
    ),
    "iptables that drop everything": Row(
        case(machine={"firewall": Firewall("iptables", True, frozenset({22}))}),
        "attention",
        "firewall-drops",
        "iptables -I INPUT -p tcp -m multiport --dports 8080,9100,9810,9811 -j ACCEPT",
    ),
    "nftables without nginx's port": Row(
        case(machine={"firewall": Firewall("nftables", True, frozenset({22, 9100, 9810, 9811}))}),
        "attention",
        "firewall-drops",
        """nft insert rule $(nft list ruleset | awk '/^table/ {t = $2 " " $3}"""
        """ /^\\tchain/ {c = $2} /hook input/ && (!at || /policy drop/) {at = t " " c}"""
        """ END {print at}') tcp dport '{ 8080 }' accept""",
    ),
    # Models
    "no model": Row(
        case(basics={"models": {"/srv/models/qwen": ModelFound("no-directory")}}),
        "refused",
        "model-missing",
        copied("qwen"),
        "operator",
    ),
    "a draft model that is not there": Row(
        case(
            spec=replace(SPEC, models=(SPECULATIVE,)),
            basics={"models": {"/srv/models/draft": ModelFound("no-directory")}},
        ),
        "refused",
        "model-missing",
        copied("draft"),
        "operator",
    ),
    "a directory that is no model": Row(
        case(basics={"models": {"/srv/models/bge": ModelFound("no-config.json")}}),
        "refused",
        "model-incomplete",
        copied("bge"),
        "operator",
    ),
    "a model that was copied half": Row(
        case(
            basics={
                "models": {
                    "/srv/models/qwen": ModelFound("shards", 31_000, ("model-00002.safetensors",))
                }
            }
        ),
        "refused",
        "model-incomplete",
        copied("qwen"),
        "operator",
    ),
}
