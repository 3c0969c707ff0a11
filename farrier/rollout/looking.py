"""All hosts that serve, looked at side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from farrier.fleet import FleetTargets, ShellError
from farrier.rollout.errors import RolloutError
from farrier.rollout.host import Host, Look

__all__ = ["PARALLEL", "look_at", "others", "serving"]

PARALLEL = 32


def serving(fleet: FleetTargets) -> dict[str, Host]:
    """The hosts of *fleet* that serve models, by name."""
    return {one.name: Host(one) for one in fleet.every if one.replicas}


def others(hosts: Mapping[str, Host], model: str, but: str) -> tuple[str, ...]:
    """The replicas of *model* (``HOST:REPLICA``) on *hosts* other than the one called *but*."""
    return tuple(
        f"{name}:{one.replica}"
        for name, host in hosts.items()
        for one in host.target.replicas
        if one.model == model and name != but
    )


def look_at(hosts: Iterable[Host]) -> tuple[dict[str, Look | None], dict[str, str]]:
    """Each host as it is, None where it could not be asked, and why it could not."""
    silent: dict[str, str] = {}

    def look(host: Host) -> tuple[str, Look | None]:
        try:
            return host.name, host.look()
        except (ShellError, RolloutError) as error:
            silent[host.name] = str(getattr(error, "what", error))
            return host.name, None

    with ThreadPoolExecutor(PARALLEL) as pool:
        return dict(pool.map(look, hosts)), silent
