"""Role ``agent``: the on-host agent, in an environment of its own, under a user of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from farrier_agent import __version__
from farrier_agent.config import AgentConfig, Replica, dumps
from pyinfra import host

from farrier.converge import Absent, Directory, Link, Text, Unit, packages, tree, units
from farrier.converge.environments import Environment, environment
from farrier.converge.templates import render
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from farrier.wheelhouse import Sources

if TYPE_CHECKING:
    from collections.abc import Mapping

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
            " as failed. `none`: 1800, or the longest `start_timeout` of the host's models.",
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
CONTROL_GROUP = "farrier"
"""Made by the role base; its members may use the agent's control socket."""

CURRENT = "/opt/farrier/agent/current"
WARM_UP = 1800.0
"""Seconds; the agent's own default."""

ADAPTERS = {"vllm": "vllm", "custom": "openai"}
"""The agent's adapter for each engine of the inventory."""


def agent_config(
    spec: HostSpec,
    settings: Mapping[str, Any],
    hashes: Mapping[str, str],
    drains: Mapping[str, Any],
    *,
    gateways: bool,
) -> AgentConfig:
    """The host's ``agent.toml``.

    *hashes* maps a replica to its unit's configuration hash. *drains* are the settings of the role
    ``engine``, whose drains are this host's where the agent's own are not said. *gateways*: the
    fleet has some, which take a moment to hear that a replica drains.
    """
    said = spec.agent
    serves = "gpu" in spec.groups
    config = AgentConfig(
        host=spec.name,
        accelerator=spec.accelerator if serves else "cpu",
        listen=_listen(settings, spec.agent_port),
        check_listen=_listen(settings, said.check_port) if serves else None,
        control_group=CONTROL_GROUP,
        nvml_library=said.nvml_library,
        tick=settings["agent_tick"],
        settle_seconds=_first(said.settle_seconds, 3.0 if gateways else 0.0),
        drain_seconds=_first(said.drain_seconds, drains["engine_drain_seconds"]),
        drain_policy=said.drain_policy or drains["engine_drain_policy"],
        warm_up_seconds=_first(said.warm_up_seconds, _longest_start(spec)),
        wedged_seconds=said.wedged_seconds,
        silent_seconds=said.silent_seconds,
        notices=said.notices,
        replicas=[
            Replica(
                name=model.replica,
                model=model.name,
                engine=ADAPTERS[model.engine],
                unit=model.unit,
                port=model.port,
                gpus=list(model.gpus),
                config_hash=hashes[model.replica],
            )
            for model in spec.models
        ],
    )
    if said.notices_address is None:
        return config
    return msgspec.structs.replace(config, notices_address=said.notices_address)


def _listen(settings: Mapping[str, Any], port: int) -> str:
    address = settings["agent_address"]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _first(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _longest_start(spec: HostSpec) -> float:
    """How long a converge waits is no bound for the agent: an engine may come up after that."""
    return max([WARM_UP, *(model.start_timeout for model in spec.models)])


def unit_text(spec: HostSpec, program: str) -> str:
    """The agent's unit; *program* is the directory of its environment."""
    return render(
        _TEMPLATES / f"{UNIT}.j2",
        program=program,
        accelerator=spec.accelerator if "gpu" in spec.groups else "cpu",
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
    spec: HostSpec, hashes: Mapping[str, str], drains: Mapping[str, Any], *, gateways: bool
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
    )
    environment(wanted, name="Environment")
    if serves:
        # no mark: neither has to be told to anything that runs
        tree(
            Text(f"/etc/systemd/system/{EVIDENCE_UNIT}", evidence_text(spec)),
            Text(RULES, rules_text(spec)),
            name="Its ways to systemd",
        )
    config = agent_config(spec, settings, hashes, drains, gateways=gateways)
    tree(
        Text("/etc/farrier/agent.toml", dumps(config)),
        Text(f"/etc/systemd/system/{UNIT}", unit_text(spec, wanted.path)),
        Link("/usr/local/bin/farrier-agent", f"{CURRENT}/bin/farrier-agent"),
        name="Configuration",
        applied=UNIT,
    )
    units(Unit(UNIT, apply="restart"), name="Service")


@deploy("Remove agent")
def remove() -> None:
    """Stop the agent and take it away; gates, records and kept evidence stay as they are."""
    units(Unit(UNIT, stopped=True), name="Service")
    tree(
        Absent(RULES),
        Absent(f"/etc/systemd/system/{UNIT}"),
        Absent(f"/etc/systemd/system/{EVIDENCE_UNIT}"),
        Absent("/etc/farrier/agent.toml"),
        Absent("/run/farrier/agent/control.sock"),
        Absent("/usr/local/bin/farrier-agent"),
        Absent("/opt/farrier/agent"),
        name="Files",
        applied=UNIT,
    )
