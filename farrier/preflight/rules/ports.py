"""Ports: free for the units that will listen on them, and let through by the firewall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.preflight.verdict import Code, Reason
from farrier.spec.check_hosts import is_over_ray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case
    from farrier.spec import HostSpec

__all__ = ["CODES", "RULES", "served_ports", "wanted_ports"]

PORT_TAKEN = Code(
    "port-taken",
    "refuse",
    "Another program listens where a unit of Farrier's will.",
    "{stop}",
    shown="systemctl disable --now UNIT   (or kill PID, where it is no unit)",
)
FIREWALL_DROPS = Code(
    "firewall-drops",
    "warn",
    "The host's firewall drops what nobody allowed, and nobody allowed a port that others reach:"
    " nginx's for clients, the agent's and the node exporter's for Prometheus, the agent's second"
    " for gateways.",
    "{allow}",
    shown="ufw allow PORTS/tcp   (or the same with nft or iptables, in the chain that drops)",
)

# Accepting in a table of our own would not help: a packet has to pass every chain. So the rule goes
# to the head of the chain that drops.
_NFT_CHAIN = (
    'nft list ruleset | awk \'/^table/ {t = $2 " " $3} /^\\tchain/ {c = $2}'
    ' /hook input/ && (!at || /policy drop/) {at = t " " c} END {print at}\''
)


ALERTMANAGER = 9093


def wanted_ports(spec: HostSpec) -> dict[int, str]:
    """The ports that this host's units will listen on, with the unit."""
    ports = {spec.agent_port: "farrier-agent.service", 9100: "prometheus-node-exporter.service"}
    if "gpu" in spec.groups:
        ports[spec.nginx_port] = "nginx.service"
        ports[spec.agent.check_port] = "farrier-agent.service"
    if "monitor" in spec.groups:
        ports[9090] = "prometheus.service"
        ports[ALERTMANAGER] = "prometheus-alertmanager.service"
    meeting = [model for model in spec.models if model.spans > 1]
    ports |= {model.master_port: model.unit for model in meeting if not is_over_ray(model)}
    ports |= {model.master_port: model.unit for model in spec.members if is_over_ray(model)}
    return ports | {model.port: model.unit for model in spec.models}


def served_ports(spec: HostSpec) -> dict[int, str]:
    """Those of them that others have to reach; engines and Alertmanager listen on loopback only."""
    loopback = {ALERTMANAGER, *(model.port for model in spec.models)}
    return {port: unit for port, unit in wanted_ports(spec).items() if port not in loopback}


def free_ports(case: Case) -> Iterator[Reason]:
    """No stranger listens on them."""
    ports = wanted_ports(case.wanted.spec)
    for listener in sorted(set(case.basics.listeners), key=lambda item: (item.port, item.pid)):
        unit = ports.get(listener.port)
        if unit is None or listener.unit == unit:
            continue
        own_unit = listener.unit.endswith(".service") and not listener.unit.startswith("user@")
        stop = f"systemctl disable --now {listener.unit}" if own_unit else f"kill {listener.pid}"
        yield PORT_TAKEN.reason(
            f"port {listener.port}, meant for {unit}, is taken by {listener.program or '?'}"
            f" (pid {listener.pid}, {listener.unit}; systemctl status {listener.pid}): stop it, or"
            f" give {unit} another port in the inventory",
            stop=stop,
        )


def let_through(case: Case) -> Iterator[Reason]:
    """The firewall lets clients and Prometheus in.

    Where it trusts whole networks somebody has thought of them; an interface may be docker's.
    """
    firewall = case.found.machine.firewall if case.found.machine else None
    if firewall is None or not firewall.drops_by_default:
        return
    if any("." in who or ":" in who for who in firewall.trusted):
        return
    closed = {
        port: unit
        for port, unit in served_ports(case.wanted.spec).items()
        if port not in firewall.open_ports
    }
    if not closed:
        return
    ports = ",".join(str(port) for port in sorted(closed))
    allow = {
        "ufw": f"ufw allow {ports}/tcp",
        "nftables": f"nft insert rule $({_NFT_CHAIN}) tcp dport '{{ {ports} }}' accept",
    }.get(firewall.kind, f"iptables -I INPUT -p tcp -m multiport --dports {ports} -j ACCEPT")
    units = ", ".join(f"{port} ({unit})" for port, unit in sorted(closed.items()))
    yield FIREWALL_DROPS.reason(
        f"the firewall ({firewall.kind or 'unknown'}) drops what comes to {units}",
        allow=allow,
    )


CODES = (PORT_TAKEN, FIREWALL_DROPS)
RULES = (free_ports, let_through)
