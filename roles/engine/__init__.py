"""Role ``engine``: one systemd unit per replica, started if it is not running, never restarted."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farrier.converge import Absent, Text, Unit, tree, units
from farrier.converge.templates import render
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from farrier.spec.check_hosts import is_over_ray
from farrier.spec.engines import ENGINES
from farrier.spec.ray import session
from roles.engine.commands import argv, command_line, environment, prepared, systemd_quote
from roles.engine.containers import is_container
from roles.engine.operations import accounts, orphans
from roles.engine.previous import keep_previous
from roles.engine.ray import TOKEN, home
from roles.engine.spanning import follow, let_in
from roles.engine.waiting import ready

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farrier.spec import HostSpec, Model

__all__ = ["DEFAULTS", "config_hash", "engine", "remove", "serve", "unit_text"]

DEFAULTS = Defaults(
    "engine",
    "One unit `engine-<replica>.service` per replica, listening on loopback only, under a user of"
    " its own. A converge starts what is not running and marks what runs with an older"
    " configuration *restart pending*; it never restarts.",
    (
        Default(
            "engine_stop_timeout",
            120,
            "Seconds from SIGTERM to SIGKILL. No request is in flight by then.",
        ),
        Default(
            "engine_drain_seconds",
            900,
            "Seconds that a stop of the unit waits for the requests in flight, before"
            " `engine_drain_policy` counts.",
        ),
        Default(
            "engine_drain_policy",
            "extend",
            "`extend`: wait on, 23 minutes in all at the most; `force`: go on, which cuts them, and"
            " is counted.",
        ),
        Default("engine_restart_seconds", 5, "Seconds between a crash and the next start."),
        Default(
            "engine_start_limit",
            5,
            "Failed starts within ten minutes after which systemd gives up.",
        ),
        Default("engine_memory_max", "infinity", "The unit's MemoryMax=."),
    ),
)

_TEMPLATE = Path(__file__).parent / "templates" / "engine.service.j2"
AGENT = "/opt/farrier/agent/current"
"""Where the agent's role keeps the program that drains."""
_STAND_IN = "@CONFIG_HASH@"
_BESIDE = ("#", "ExecStartPre=", "ExecStop=", "ExecStopPost=", "RestartForceExitStatus=")
"""Beginnings of the unit's lines that a running engine needs no restart for."""


def unit_text(model: Model, spec: HostSpec, settings: Mapping[str, Any], program: str) -> str:
    """The unit of *model*; *program* is the directory of the engine's environment."""
    text = render(
        _TEMPLATE,
        model=model,
        user=ENGINES[model.engine].user,
        accelerator=spec.accelerator,
        container=is_container(model),
        settings=settings,
        agent=AGENT,
        command=command_line(_command(model, spec, settings, program)),
        member=model in spec.members,
        node=_node(model, spec),
        session=session(home(model, spec)) if is_over_ray(model) else "",
        let_in=let_in(rank) if (rank := spec.ranks.get(model.replica)) else "",
        prepare=command_line(before) if (before := prepared(model, program)) else "",
        start_check=" ".join(start_check(model, spec)),
        client_port=spec.nginx_port,
        environment=[
            systemd_quote(f"{name}={value}")
            for name, value in environment(model, spec, program).items()
        ],
        config_hash=_STAND_IN,
    )
    counts = [line for line in text.splitlines() if not line.startswith(_BESIDE)]
    return text.replace(_STAND_IN, hashlib.sha256("\n".join(counts).encode()).hexdigest())


def _command(model: Model, spec: HostSpec, settings: Mapping[str, Any], program: str) -> list[str]:
    words = argv(model, spec, settings, program)
    rank = spec.ranks.get(model.replica)
    follows = rank and rank.number and not is_over_ray(model)
    return [*follow(rank, AGENT), *words] if rank and follows else words


def _node(model: Model, spec: HostSpec) -> str:
    """The name of the node of Ray that *model*, the head's, is of; empty for any other."""
    over_ray = is_over_ray(model) and model not in spec.members
    return home(model, spec) if over_ray else ""


def start_check(model: Model, spec: HostSpec) -> list[str]:
    """The program that lets *model*'s engine start, with its arguments; no word has a space."""
    words = ["start_check", model.replica, "--unit", model.unit]
    words += ["--member"] if model in spec.members else []
    if spec.accelerator != "cuda" or not model.gpus:
        return words
    words += ["--gpus", ",".join(map(str, model.gpus))]
    if spec.agent.nvml_library:
        words += ["--nvml-library", spec.agent.nvml_library]
    others = [
        other.unit
        for other in spec.carried
        if other.replica != model.replica and set(other.gpus) & set(model.gpus)
    ]
    return [*words, *(["--may-share", *others] if others else [])]


def config_hash(unit: str) -> str:
    """What a unit made by :func:`unit_text` records when it starts."""
    line = next(line for line in unit.splitlines() if line.startswith("X-FarrierConfigHash="))
    return line.partition("=")[2]


@deploy("Engine")
def engine(spec: HostSpec, unit_texts: Mapping[str, str]) -> None:
    """Write the units of *unit_texts* and start those that are not running."""
    users = sorted({ENGINES[model.engine].user for model in spec.carried})
    accounts(users, name="Users")
    if any(is_over_ray(model) for model in spec.carried):
        user = ENGINES["vllm"].user
        token = Text(TOKEN, f"{spec.ray_token}\n", mode="640", group=user, secret=True)
        tree(token, name="The token of Ray")
    keep_previous(
        {model.replica: config_hash(unit_texts[model.unit]) for model in spec.models},
        name="What they had before",
    )
    tree(
        *(Text(f"/etc/systemd/system/{name}", text) for name, text in unit_texts.items()),
        name="Units",
    )
    units(*(Unit(name) for name in unit_texts), name="Started")
    orphans(sorted(unit_texts), name="Units that the inventory no longer has")


@deploy("Serving")
def serve(spec: HostSpec, unit_texts: Mapping[str, str]) -> None:
    """Wait until every replica's gate is open; say which of them run an older configuration."""
    ready(
        spec.models,
        {model.replica: config_hash(unit_texts[model.unit]) for model in spec.models},
        name="Replicas are ready",
    )


@deploy("Remove engines")
def remove(spec: HostSpec) -> None:
    """Stop the engines of *spec*, which drains them, and remove their units and records."""
    units(*(Unit(model.unit, stopped=True) for model in spec.carried), name="Stopped")
    tree(
        *(Absent(f"/etc/systemd/system/{model.unit}") for model in spec.carried),
        Absent(TOKEN),
        *(
            Absent(f"/var/lib/farrier/previous/engine-{model.replica}.{suffix}")
            for model in spec.carried
            for suffix in ("service", "put-back")
        ),
        *(Absent(f"/var/lib/farrier/engines/{model.replica}") for model in spec.carried),
        *(
            Absent(f"/var/lib/farrier/replicas/{model.replica}.{suffix}")
            for model in spec.carried
            for suffix in ("json", "lock", "new", "bad", "health.json")
        ),
        *(
            Absent(f"/run/farrier/{place}{model.replica}")
            for model in spec.carried
            for place in ("open/", "started/", "agent/evidence-")
        ),
        name="Units and caches",
    )
