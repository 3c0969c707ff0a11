"""What the inventory says of a host's agent, and of how engines are drained: checked and typed.

The defaults and what each datum means stand in the roles ``agent`` and ``engine``.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from farrier_agent.config import COLLECTORS, Collector
from farrier_agent.health.rules import BY_NAME
from farrier_agent.web.configuration import WebConfigError, parse

from farrier.spec.check_model import Finding, did_you_mean, is_whole, shown

__all__ = ["AgentSettings", "agent_findings", "read_agent"]

Policy = Literal["extend", "abort", "force"]
Cloud = Literal["aws", "gcp", "azure"]
WEEK = 7 * 86400
"""Seconds: the agent's own limit."""


@dataclass(frozen=True)
class AgentSettings:
    """Of the host's agent, besides its port. None: as its role or the agent itself decides.

    Seconds are seconds. ``check_port`` is where gateways ask, ``nvml_library`` a path on the host,
    ``notices_address`` an ``address:port``. ``collectors_off`` are not run, the rules of health in
    ``observe_only`` drain nothing.
    """

    check_port: int = 9811
    nvml_library: str | None = None
    settle_seconds: float | None = None
    drain_seconds: float | None = None
    drain_policy: Policy | None = None
    warm_up_seconds: float | None = None
    wedged_seconds: float = 25.0
    silent_seconds: float = 300.0
    notices: Cloud | None = None
    notices_address: str | None = None
    collectors_off: tuple[Collector, ...] = ()
    observe_only: tuple[str, ...] = ()
    fabric: Literal["auto", "required", "none"] = "auto"


def read_agent(data: Mapping[str, Any]) -> AgentSettings:
    """The settings in *data*. To be used only if :func:`agent_findings` has none."""
    names = AgentSettings.__dataclass_fields__
    given = {name: data[f"agent_{name}"] for name in names if f"agent_{name}" in data}
    for name in ("collectors_off", "observe_only"):
        if name in given:
            given[name] = tuple(given[name])
    return AgentSettings(**given)


def agent_findings(data: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with *data*, field by field."""
    for name, problem in _CHECKS.items():
        if name in data and (message := problem(data[name])):
            yield name, message


Check = Callable[[object], str]
"""What is wrong with a value, in words; empty when it is good."""


def _port(value: object) -> str:
    good = is_whole(value) and value in range(1, 65536)
    return "" if good else f"must be a port from 1 to 65535, not {shown(value)}"


def _seconds(value: object) -> str:
    if _number(value) > WEEK:
        return _too_long(value)
    return "" if _number(value) > 0 else f"must be seconds, more than 0, not {shown(value)}"


def _seconds_or_none_at_all(value: object) -> str:
    if _number(value) > WEEK:
        return _too_long(value)
    return "" if _number(value) >= 0 else f"must be seconds, 0 or more, not {shown(value)}"


def _too_long(value: object) -> str:
    return f"must be seconds, a week at the most, not {shown(value)}"


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return -1.0
    return float(value)


def _one_of(*words: str) -> Check:
    def problem(value: object) -> str:
        known = ", ".join(map(repr, words))
        return (
            ""
            if value in words
            else f"{shown(value)} is none of {known}" + (did_you_mean(value, words))
        )

    return problem


def _some_of(words: Sequence[str]) -> Check:
    def problem(value: object) -> str:
        if not isinstance(value, list | tuple):
            return f"must be a list, not {shown(value)}"
        known = ", ".join(map(repr, words))
        for one in value:
            if one not in words:
                return f"{shown(one)} is none of {known}" + did_you_mean(one, words)
        return ""

    return problem


def _ip(value: object) -> str:
    try:
        ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        return f"{shown(value)} is no IP address"
    return ""


def _address(value: object) -> str:
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    good = colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536
    return "" if good and not _ip(host.strip("[]")) else f"{shown(value)} is not address:port"


def _path(value: object) -> str:
    # letters that mean nothing to a shell or to systemd: it stands in an engine's unit
    good = isinstance(value, str) and re.fullmatch(r"/[A-Za-z0-9._/+@=-]+", value)
    return "" if good else f"must be an absolute path on the host, not {shown(value)}"


def _web_config(value: object) -> str:
    if not isinstance(value, str):
        return f"must be the path of a file on this machine, not {shown(value)}"
    try:
        parse(Path(value).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        return f"{value} cannot be read: {error}"
    except WebConfigError as error:
        return f"{value}: {error}"
    return ""


def _optional(check: Check) -> Check:
    return lambda value: "" if value is None else check(value)


_CHECKS: Mapping[str, Check] = {
    "agent_address": _ip,
    "agent_check_port": _port,
    "agent_collectors_off": _some_of(COLLECTORS),
    "agent_drain_policy": _optional(_one_of("extend", "abort", "force")),
    "agent_drain_seconds": _optional(_seconds),
    "agent_fabric": _one_of("auto", "required", "none"),
    "agent_notices": _optional(_one_of("aws", "gcp", "azure")),
    "agent_notices_address": _optional(_address),
    "agent_nvml_library": _optional(_path),
    "agent_silent_seconds": _seconds,
    "agent_observe_only": _some_of(tuple(BY_NAME)),
    "agent_settle_seconds": _optional(_seconds_or_none_at_all),
    "agent_tick": _seconds,
    "agent_warm_up_seconds": _optional(_seconds),
    "agent_wedged_seconds": _seconds,
    "agent_web_config": _optional(_web_config),
    # systemd cannot cancel a stop, so there is no abort
    "engine_drain_policy": _one_of("extend", "force"),
    "engine_drain_seconds": _seconds,
}
