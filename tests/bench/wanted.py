"""What ``deploys/llm.py`` asks of every host, recorded from the deploy itself.

``python -m tests.bench.wanted`` runs pyinfra's own command line with operations that only note
what they were called with: nothing is read from a host and nothing changed. It prints JSON with
API keys in it; the harness reads it through a pipe.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Environment", "File", "Wanted", "wanted"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class File:
    """A file of the end state."""

    path: str
    content: str = field(repr=False)
    mode: str
    secret: bool


@dataclass(frozen=True)
class Environment:
    """A Python environment of the end state, and the archive of wheels that it is filled from."""

    thing: str
    path: str
    wheels: str


@dataclass(frozen=True)
class Wanted:
    """The end state of one host. *models* are dicts as the playbook reads them."""

    host: str
    groups: tuple[str, ...]
    files: tuple[File, ...]
    directories: tuple[str, ...]
    links: dict[str, str]
    absent: tuple[str, ...]
    packages: tuple[str, ...]
    units: tuple[str, ...]
    users: tuple[str, ...]
    environments: tuple[Environment, ...]
    ports: dict[str, str]
    models: tuple[dict[str, Any], ...]


def wanted() -> dict[str, Wanted]:
    """The end state of every host of the lab, by name."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.wanted"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"deploys/llm.py could not be recorded:\n{done.stderr[-2000:]}")
    return {name: _from_json(host) for name, host in json.loads(done.stdout).items()}


def _from_json(host: dict[str, Any]) -> Wanted:
    return Wanted(
        **host
        | {
            "groups": tuple(host["groups"]),
            "files": tuple(File(**file) for file in host["files"]),
            "environments": tuple(Environment(**one) for one in host["environments"]),
        }
        | {
            key: tuple(host[key])
            for key in ("directories", "absent", "packages", "units", "users", "models")
        }
    )


Calls = dict[str, list[tuple[str, tuple[Any, ...], dict[str, Any]]]]


def _record() -> Calls:
    """Run pyinfra in this process with recording operations; by host, what was called."""
    from pyinfra import host
    from pyinfra_cli import main

    calls: Calls = defaultdict(list)

    def recording(function: Any) -> Any:
        def record(*args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            calls[host.name].append((function.__name__, args, kwargs))

        return record

    # Before farrier.converge makes its operations with it.
    module: Any = sys.modules["pyinfra.api.operation"]
    module.operation = lambda: recording
    from farrier.converge import typed

    setattr(typed, "expect", lambda question: None)  # noqa: B010, ARG005 - nothing is asked
    sys.argv = ["pyinfra", "-y", "--dry", "inventory", "deploys/llm.py"]
    os.environ["PYINFRA_PROGRESS"] = "off"
    try:
        main.main()
    except SystemExit as exit_:
        if exit_.code:
            raise
    return calls


def _described(name: str, calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> Wanted:
    from farrier.converge import Absent, Directory, Link, Text
    from farrier.converge.environments import Environment as Built
    from farrier.converge.preflight import wanted_ports
    from farrier.spec import HostSpec
    from farrier.wheelhouse import Wheelhouse, fill

    by_kind: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = defaultdict(list)
    for kind, args, kwargs in calls:
        by_kind[kind].append((args, kwargs))
    entries = [entry for args, _ in by_kind["tree"] for entry in args]
    (spec,) = (args[0] for args, _ in by_kind["preflight"])
    assert isinstance(spec, HostSpec)
    built: list[Built] = [args[0] for args, _ in by_kind["environment"]]
    python = {"bookworm": "3.11", "trixie": "3.13"}[_suite(name)]
    hashes = {key: value for args, _ in by_kind["ready"] for key, value in args[1].items()}
    return Wanted(
        host=name,
        groups=tuple(spec.groups),
        files=tuple(
            File(entry.path, entry.content, entry.mode, entry.secret)
            for entry in entries
            if isinstance(entry, Text)
        ),
        directories=tuple(entry.path for entry in entries if isinstance(entry, Directory)),
        links={entry.path: entry.target for entry in entries if isinstance(entry, Link)},
        absent=tuple(entry.path for entry in entries if isinstance(entry, Absent)),
        packages=tuple(name for _, kwargs in by_kind["packages"] for name in kwargs["names"]),
        units=tuple(unit.name for args, _ in by_kind["units"] for unit in args),
        users=tuple(user for args, _ in by_kind["accounts"] for user in args[0]),
        environments=tuple(
            Environment(
                one.thing,
                one.path,
                str(
                    fill(
                        Wheelhouse(
                            f"{one.thing}-{one.release}-py{python}",
                            dict(one.locks)[python],
                            python,
                            one.sources,
                            one.source,
                        )
                    )
                ),
            )
            for one in built
        ),
        ports={str(port): unit for port, unit in wanted_ports(spec).items()},
        models=tuple(
            {
                "replica": model.replica,
                "unit": model.unit,
                "source": model.source.partition(":")[2],
                "start_timeout": model.start_timeout,
                "config_hash": hashes[model.replica],
            }
            for model in spec.models
        ),
    )


def _suite(host: str) -> str:
    from farrier.lab import Lab

    lab = Lab.open(os.environ["FARRIER_LAB"])
    return next(one.suite for one in lab.hosts if one.name == host)


def main() -> None:
    from dataclasses import asdict

    out = os.dup(1)
    os.dup2(2, 1)  # what pyinfra prints is not the answer
    calls = _record()
    answer = {name: asdict(_described(name, of_host)) for name, of_host in sorted(calls.items())}
    with os.fdopen(out, "w") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
