"""Role ``agent``: the on-host agent, in an environment of its own, under a user of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farrier_agent import __version__
from farrier_agent.config import dumps
from pyinfra import host

from farrier.converge import Absent, Directory, Link, Text, Unit, packages, tree, units
from farrier.converge.environments import Environment, environment
from farrier.converge.templates import render
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from farrier.wheelhouse import Sources
from roles.agent.configuration import WEB_CONFIG, agent_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from farrier.spec import HostSpec

__all__ = [
    "DEFAULTS",
    "agent",
    "agent_config",
    "evidence_text",
    "remove",
    "rules_text",
    "unit_text",
]

DEFAULTS = Defaults(
    "agent",
    "Farrier's agent as `farrier-agent.service`: warms replicas up and opens their gates, drains"
    " and restarts them on demand, and tells what it sees on `/metrics`, `/livez`, `/readyz` and"
    " `/status`. It runs as a user of its own without any capability; polkit lets it start, stop"
    " and restart the units of this host's replicas, and nothing else. (Not on Ubuntu 22.04, whose"
    " polkit knows no such rules: there `farrier-agent restart` is refused and `systemctl restart`"
    " drains just the same.) Stopping, restarting or upgrading the agent touches no gate and no"
    " engine.",
    (
        Default("agent_port", 9810, "Port of the agent's HTTP endpoint."),
        Default(
            "agent_check_port",
            9811,
            "Port on which a gateway asks whether a replica takes requests (HAProxy's"
            " agent-check), on hosts of group gpu.",
        ),
        Default("agent_address", "0.0.0.0", "Address that it listens on."),  # noqa: S104
        Default("agent_tick", 5.0, "Seconds between two collections."),
        Default(
            "agent_settle_seconds",
            None,
            "Seconds for which a draining replica still takes requests while gateways hear of it."
            " `none`: 3, or 0 where the inventory has no host in group gateway.",
        ),
        Default(
            "agent_drain_seconds",
            None,
            "Seconds that a drain waits for the requests in flight before its policy counts."
            " `none`: as `engine_drain_seconds`.",
        ),
        Default(
            "agent_drain_policy",
            None,
            "What a drain does then: `extend` waits on, `abort` serves again, `force` goes on and"
            " cuts them. `none`: as `engine_drain_policy`.",
        ),
        Default(
            "agent_warm_up_seconds",
            None,
            "Seconds that an engine may take from its start to its first answers before it counts"
            " as failed. `none`: 1800, or the longest `start_timeout` of the host's models. One"
            " that answers generations with nothing but its own errors (500) fails after 60.",
        ),
        Default(
            "agent_wedged_seconds",
            25.0,
            "Seconds with requests in flight and without any progress after which an engine is"
            " restarted.",
        ),
        Default(
            "agent_silent_seconds",
            300.0,
            "The same for an engine that tells nothing of its work, such as most of"
            ' `engine="custom"`: without a byte on its sockets. Longer than its longest answer that'
            " is not streamed.",
        ),
        Default(
            "agent_notices",
            None,
            "`aws`, `gcp` or `azure`: watch that cloud's notices of spot reclaims and maintenance,"
            " and drain in time.",
        ),
        Default(
            "agent_notices_address",
            None,
            "`address:port` of the cloud's metadata service. `none`: the clouds' own.",
        ),
        Default(
            "agent_nvml_library",
            None,
            "Path of libnvidia-ml.so.1 on the host, where it is not the linker's choice.",
        ),
        Default(
            "agent_collectors_off",
            [],
            "Collectors that are not run, of `gpu`, `xid`, `pci`, `process`, `engine`, `requests`,"
            " `gateway`, `certificate`."
            " Without `gpu` nothing is concluded about GPUs, and what was is forgotten.",
        ),
        Default(
            "agent_observe_only",
            [],
            "Rules of health that only observe and drain nothing: [health.md](../health.md).",
        ),
        Default(
            "agent_fabric",
            "auto",
            "Whether the GPUs need NVIDIA's fabric manager: `required`, `none`, or `auto`, as they"
            " say themselves.",
        ),
        Default(
            "agent_web_config",
            None,
            "A web configuration file of Prometheus's exporter-toolkit, on the operator's machine:"
            " TLS and passwords for the agent's HTTP endpoint. The certificates and keys that it"
            " names have to be on the host, readable for the user farrier-agent.",
        ),
        Default(
            "agent_index_url",
            None,
            "Package index from which the operator's machine downloads the agent's dependencies,"
            " instead of the one that pip is configured with.",
        ),
        Default("agent_find_links", [], "Directories or pages with wheels, searched as well."),
    ),
)

PROJECT = Path(__file__).resolve().parents[2] / "agent"
_TEMPLATES = Path(__file__).parent / "templates"
UNIT = "farrier-agent.service"
EVIDENCE_UNIT = "farrier-evidence@.service"
RULES = "/etc/polkit-1/rules.d/50-farrier.rules"
AGENT_USER = "farrier-agent"

CURRENT = "/opt/farrier/agent/current"


def unit_text(spec: HostSpec, program: str) -> str:
    """The agent's unit; *program* is the directory of its environment."""
    return render(
        _TEMPLATES / f"{UNIT}.j2",
        program=program,
        accelerator=spec.accelerator if "gpu" in spec.groups else "cpu",
        serves="gpu" in spec.groups,
    )


def evidence_text(spec: HostSpec) -> str:
    """The unit that keeps evidence about one replica, as root."""
    return render(_TEMPLATES / f"{EVIDENCE_UNIT}.j2", accelerator=spec.accelerator, program=CURRENT)


def rules_text(spec: HostSpec) -> str:
    """polkit's rule for the host's replicas."""
    return render(
        _TEMPLATES / "50-farrier.rules.j2",
        engines=json.dumps([model.unit for model in spec.models]),
        evidence=json.dumps([f"farrier-evidence@{model.replica}.service" for model in spec.models]),
    )


@deploy("Agent")
def agent(
    spec: HostSpec,
    hashes: Mapping[str, str],
    drains: Mapping[str, Any],
    *,
    gateways: bool,
    fleet: Iterable[HostSpec] = (),
    gateway_tls: str | None = None,
) -> None:
    """Install the agent and (re)start it when its program or configuration changed.

    The arguments are those of :func:`agent_config`.
    """
    settings = DEFAULTS.read(host.data)
    serves = "gpu" in spec.groups
    packages(
        name="Packages",
        names=["python3-minimal", "python3-systemd", *(["polkitd"] if serves else [])],
    )
    tree(Directory("/opt/farrier/agent"), name="Directory")
    wanted = Environment(
        thing="agent",
        release=__version__,
        locks=tuple(
            (f"3.{path.stem.removeprefix('cp3')}", path)
            for path in sorted((PROJECT / "locks").glob("cp*.txt"))
        ),
        needs_mb=200,
        sources=Sources(settings["agent_index_url"], tuple(settings["agent_find_links"])),
        source=PROJECT,
        # systemd-python is Debian's: it has to match the host's libsystemd.
        paths=("/usr/lib/python3/dist-packages",),
        service=True,
    )
    environment(wanted, name="Environment")
    if serves:
        # no mark: neither has to be told to anything that runs
        tree(
            Text(f"/etc/systemd/system/{EVIDENCE_UNIT}", evidence_text(spec)),
            Text(RULES, rules_text(spec)),
            name="Its ways to systemd",
        )
    config = agent_config(
        spec, settings, hashes, drains, gateways=gateways, fleet=fleet, gateway_tls=gateway_tls
    )
    tree(
        Text("/etc/farrier/agent.toml", dumps(config)),
        _web_config(settings["agent_web_config"]),
        Text(f"/etc/systemd/system/{UNIT}", unit_text(spec, wanted.path)),
        Link("/usr/local/bin/farrier-agent", f"{CURRENT}/bin/farrier-agent"),
        name="Configuration",
        applied=UNIT,
    )
    units(Unit(UNIT, apply="restart"), name="Service")


def _web_config(path: str | None) -> Text | Absent:
    if path is None:
        return Absent(WEB_CONFIG)
    content = Path(path).read_text(encoding="utf-8")
    return Text(WEB_CONFIG, content, mode="640", group=AGENT_USER, secret=True)


@deploy("Remove agent")
def remove() -> None:
    """Stop the agent and take it away; gates, records and kept evidence stay as they are."""
    units(Unit(UNIT, stopped=True), name="Service")
    tree(
        Absent(RULES),
        Absent(f"/etc/systemd/system/{UNIT}"),
        Absent(f"/etc/systemd/system/{EVIDENCE_UNIT}"),
        Absent("/etc/farrier/agent.toml"),
        Absent(WEB_CONFIG),
        Absent("/run/farrier/agent/control.sock"),
        Absent("/usr/local/bin/farrier-agent"),
        Absent("/opt/farrier/agent"),
        name="Files",
        applied=UNIT,
    )
