"""``python -m farrier.fleet.resolve``: the inventory as JSON on standard output, by pyinfra itself.

A program of its own, for pyinfra's command line lets gevent replace sockets and threads. Whatever
an inventory prints goes to standard error, so that standard output holds one line of JSON: the
hosts, or ``{"error": …, "problems": […]}`` with exit code 1.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from pyinfra.api import Host

    from farrier.fleet.target import Target
    from farrier.preflight.hosts import Site
    from farrier.spec import HostSpec

__all__ = ["main"]


@click.command()
@click.option("--inventory", required=True)
@click.argument("limit", nargs=-1)
@click.pass_context
def main(context: click.Context, inventory: str, limit: tuple[str, ...]) -> None:
    """Resolve the inventory; for :func:`farrier.fleet.read_fleet_targets`."""
    context.params["wants_fleet"] = True
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        try:
            told, code = _resolved(inventory, limit), 0
        except _mistakes() as error:
            told, code = _mistake(error), 1
        json.dump(told, answer)
    sys.exit(code)


def _mistakes() -> tuple[type[Exception], ...]:
    from pyinfra.api.exceptions import PyinfraError  # noqa: PLC0415

    return (click.ClickException, PyinfraError)


def _mistake(error: Exception) -> dict[str, Any]:
    problems = [problem.to_json() for problem in getattr(error, "problems", ())]
    return {"error": _said(error), "problems": problems}


def _said(error: Exception) -> str:
    crash = getattr(error, "exception", None)
    filename = getattr(error, "filename", None)
    if crash is not None and filename:  # what the inventory's own code raised
        frames = [one for one in extract_tb(crash.__traceback__) if one.filename == str(filename)]
        line = f":{frames[-1].lineno}" if frames else ""
        return f"{filename}{line}: {type(crash).__name__}: {crash}"
    return error.message if isinstance(error, click.ClickException) else str(error)


def _resolved(inventory: str, limit: tuple[str, ...]) -> dict[str, Any]:
    # Late: pyinfra's command line lets gevent replace sockets and threads.
    from farrier.fleet.target import FleetTargets  # noqa: PLC0415
    from farrier.preflight.hosts import open_site  # noqa: PLC0415

    site = open_site(inventory, limit)
    chosen = {str(host.name) for host in site.hosts}
    every = tuple(_target(spec, _host(site, spec.name)) for spec in site.fleet.hosts.values())
    return FleetTargets(
        _file(inventory), every, tuple(target for target in every if target.name in chosen)
    ).to_json()


def _target(spec: HostSpec, host: Host) -> Target:
    from farrier.fleet.logins import login_of  # noqa: PLC0415
    from farrier.fleet.target import MemberOf, ReplicaOf, Target  # noqa: PLC0415

    return Target(
        name=spec.name,
        groups=spec.groups,
        address=spec.address,
        login=login_of(spec.name, cast("Any", host.data).dict()),
        replicas=tuple(
            ReplicaOf(model.name, model.replica, model.unit, model.port, model.hosts)
            for model in spec.models
        ),
        agent_port=spec.agent_port,
        nginx_port=spec.nginx_port,
        members=tuple(
            MemberOf(rank.replica, rank.number, rank.head, model.unit)
            for model in spec.members
            if (rank := spec.ranks[model.replica]).head != spec.name
        ),
    )


def _host(site: Site, name: str) -> Host:
    return cast("Any", site.state).inventory.get_host(name)  # type: ignore[no-any-return]


def _file(inventory: str) -> str:
    from farrier.inventory import DEFAULT_ENVIRONMENT, ENVIRONMENT  # noqa: PLC0415

    path = Path(inventory)
    if not path.is_dir():
        return inventory
    return str(path / f"{os.environ.get(ENVIRONMENT) or DEFAULT_ENVIRONMENT}.py")


if __name__ == "__main__":
    main()
