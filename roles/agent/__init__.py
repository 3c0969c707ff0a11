"""Role ``agent``: the on-host agent, in an environment of its own, under a user of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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

__all__ = ["DEFAULTS", "agent", "agent_config", "remove"]

DEFAULTS = Defaults(
    "agent",
    "Farrier's agent as `farrier-agent.service`: opens a replica's gate when the replica answers,"
    " and tells what it sees on `/metrics`, `/livez`, `/readyz` and `/status`. Stopping, restarting"
    " or upgrading it touches no gate and no engine.",
    (
        Default("agent_port", 9810, "Port of the agent's HTTP endpoint."),
        Default("agent_address", "0.0.0.0", "Address that it listens on."),  # noqa: S104
        Default("agent_tick", 5.0, "Seconds between two collections."),
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
_TEMPLATE = Path(__file__).parent / "templates" / "farrier-agent.service.j2"
UNIT = "farrier-agent.service"

ADAPTERS = {"vllm": "vllm", "custom": "openai"}
"""The agent's adapter for each engine of the inventory."""


def agent_config(
    spec: HostSpec, settings: Mapping[str, Any], hashes: Mapping[str, str]
) -> AgentConfig:
    """The host's ``agent.toml``; *hashes* maps a replica to its unit's configuration hash."""
    return AgentConfig(
        host=spec.name,
        accelerator=spec.accelerator if "gpu" in spec.groups else "cpu",
        listen=f"{settings['agent_address']}:{spec.agent_port}",
        nvml_library=settings["agent_nvml_library"],
        tick=settings["agent_tick"],
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


@deploy("Agent")
def agent(spec: HostSpec, hashes: Mapping[str, str]) -> None:
    """Install the agent and (re)start it when its program or configuration changed."""
    settings = DEFAULTS.read(host.data)
    packages(name="Packages", names=["python3-minimal", "python3-systemd"])
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
    tree(
        Text("/etc/farrier/agent.toml", dumps(agent_config(spec, settings, hashes))),
        Text(
            f"/etc/systemd/system/{UNIT}",
            render(_TEMPLATE, program=wanted.path, accelerator=spec.accelerator),
        ),
        Link("/usr/local/bin/farrier-agent", "/opt/farrier/agent/current/bin/farrier-agent"),
        name="Configuration",
        applied=UNIT,
    )
    units(Unit(UNIT, apply="restart"), name="Service")


@deploy("Remove agent")
def remove() -> None:
    """Stop the agent and take it away; gates stay as they are."""
    units(Unit(UNIT, stopped=True), name="Service")
    tree(
        Absent(f"/etc/systemd/system/{UNIT}"),
        Absent("/etc/farrier/agent.toml"),
        Absent("/usr/local/bin/farrier-agent"),
        Absent("/opt/farrier/agent"),
        name="Files",
        applied=UNIT,
    )
