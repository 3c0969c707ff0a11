"""What pyinfra does with an inventory, made Farrier's: found, checked, and explained.

pyinfra takes no directory as its inventory, runs on zero hosts with exit code 0, and says little
about a host that it cannot reach. Its one hook before the inventory is resolved is ``config.py``,
which calls :func:`install`; that wraps private names of pyinfra 3.10: ``make_inventory`` of its
command line, and those of its SSH connector that are listed in :mod:`farrier.connecting`.
tests/unit/test_inventory_contract.py and tests/lab/test_ssh_habits.py run the real ``pyinfra``
against them: an upgrade that moves one fails there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import click
from pyinfra.api import Inventory
from pyinfra.connectors.ssh import connector_data_meta
from pyinfra.context import ctx_inventory, ctx_state
from pyinfra_cli import cli
from pyinfra_cli.exceptions import CliError, WrappedError

from farrier import connecting, pace
from farrier.converge.report import only_refused
from farrier.defaults import Defaults
from farrier.origin import Origin
from farrier.spec import Fleet, Problem, SpecError, check, read_fleet, report

__all__ = ["ENVIRONMENT", "REFUSED", "RefusedError", "current_fleet", "fleet_of", "install"]

ENVIRONMENT = "FARRIER_ENV"
"""Names the file under inventory/ that ``pyinfra inventory …`` reads; ``production`` without it."""

DEFAULT_ENVIRONMENT = "production"

REFUSED = 3
"""Exit code of a run in which hosts were refused by the preflight, and nothing else failed."""

_fleets: WeakKeyDictionary[Inventory, Fleet] = WeakKeyDictionary()


class RefusedError(CliError):  # type: ignore[misc]  # pyinfra_cli has no types
    """The run ends before any host is connected to; the message says what to do."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.as_json = _Request.current().json  # click has no context any more when it shows this

    def show(self, file: Any = None) -> None:
        """Print the message; as JSON on stdout when pyinfra was asked for JSON."""
        if self.as_json:
            found = [problem.to_json() for problem in self.problems]
            click.echo(json.dumps({"error": self.message, "problems": found}))
        click.echo(self.message, err=True, file=file)


@dataclass(frozen=True)
class _Request:
    """What was asked of pyinfra's command line."""

    limit: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    group_data: tuple[str, ...] = ()
    no_wait: bool = False
    json: bool = False
    wants_fleet: bool = False

    @classmethod
    def current(cls) -> _Request:
        context = click.get_current_context(silent=True)
        params = context.params if context else {}
        return cls(
            limit=tuple(params.get("limit") or ()),
            exclude=tuple(params.get("exclude") or ()),
            operations=tuple(params.get("operations") or ()),
            group_data=tuple(params.get("group_data") or ()),
            no_wait=bool(params.get("no_wait")),
            json=bool(params.get("json_output")),
            wants_fleet=bool(params.get("wants_fleet")),
        )

    @property
    def deploys(self) -> bool:
        """Whether the inventory has to be right: ``exec``, ``fact`` and single operations need no
        spec; deploy files do, and so do commands of Farrier's own, which say so.
        """
        files = bool(self.operations) and all(name.endswith(".py") for name in self.operations)
        return files or self.wants_fleet


def install(root: Path) -> None:
    """Wrap pyinfra's command line in this process; *root* is the directory of ``config.py``."""
    if hasattr(cli.make_inventory, "__wrapped__"):
        return
    cli.make_inventory = _resolver(root, cli.make_inventory)
    cli._do_confirm = _confirmed(cli._do_confirm)
    cli._exit = _with_refusals(cli._exit)
    cli.WrappedError = _FailedError  # raised when no host is left: all refused, perhaps
    connecting.install()
    pace.install()


def fleet_of(inventory: Inventory) -> Fleet:
    """The fleet of *inventory*, read and checked once. Raises :class:`SpecError`."""
    fleet = _fleets.get(inventory)
    if fleet is None:
        fleet = _fleets[inventory] = read_fleet(cast(Any, inventory))
    check(fleet)
    return fleet


def current_fleet() -> Fleet:
    """The fleet that pyinfra works on now, checked. For deploys and roles."""
    return fleet_of(cast(Any, ctx_inventory).get())


def _resolver(root: Path, resolve: Callable[..., Inventory]) -> Callable[..., Inventory]:
    @wraps(resolve)
    def make_inventory(inventory: str, *args: Any, **kwargs: Any) -> Inventory:
        request = _Request.current()
        chosen = _environment_file(Path(inventory)) if Path(inventory).is_dir() else inventory
        try:
            hosts = resolve(chosen, *args, **kwargs)
        except SyntaxError as error:
            raise RefusedError(
                f"{_typed(error.filename or chosen)}:{error.lineno}: not valid Python: {error.msg}"
            ) from error
        _refuse_nobody(hosts, chosen, request)
        if request.deploys:
            if request.no_wait:
                raise RefusedError(
                    "--no-wait: pyinfra 3.10 exits 0 then although hosts failed.\n"
                    "  Leave it out; hosts work side by side without it, one operation at a time."
                )
            _fleets[hosts] = _checked(hosts, chosen, request, root)
        return hosts

    return make_inventory


def _confirmed(confirm: Callable[[str], bool]) -> Callable[[str], bool]:
    @wraps(confirm)
    def ask(question: str) -> bool:
        try:
            return confirm(question)
        except EOFError as error:
            raise RefusedError(
                "\nNobody is at a terminal to answer this.\n"
                "  Add -y to go on without being asked, or --dry only to see what would be changed."
            ) from error

    return ask


class _FailedError(WrappedError):  # type: ignore[misc]  # pyinfra_cli has no types
    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.exit_code = REFUSED if _only_refused() else 1


def _with_refusals(leave: Callable[[], None]) -> Callable[[], None]:
    @wraps(leave)
    def left() -> None:
        if _only_refused():
            sys.exit(REFUSED)
        leave()

    return left


def _only_refused() -> bool:
    state = cast(Any, ctx_state)
    return state.isset() and only_refused(host.name for host in state.get().failed_hosts)


def _environment_file(directory: Path) -> str:
    environment = os.environ.get(ENVIRONMENT) or DEFAULT_ENVIRONMENT
    there_are = sorted(path.stem for path in directory.glob("*.py") if path.stem != "__init__")
    if environment not in there_are:
        raise RefusedError(
            f"{ENVIRONMENT}={environment}: there is no {directory / environment}.py.\n"
            f"  Environments of {directory}/: {', '.join(there_are) or 'none'}\n"
            f"  Set {ENVIRONMENT} to one of them, or unset it for {DEFAULT_ENVIRONMENT}."
        )
    return str(directory / f"{environment}.py")


def _refuse_nobody(hosts: Inventory, chosen: str, request: _Request) -> None:
    """pyinfra would do nothing and exit 0; a pattern that matches nobody is a typing mistake."""
    if not len(hosts):
        if Path(chosen).is_file():
            raise RefusedError(
                f"{chosen} has no hosts.\n"
                f"  Write your machines into it (its comments show how), as lists named after "
                "their groups: gpu, gateway, monitor.\n"
                "  No machines at hand? `make demo` makes a lab of them on this one."
            )
        raise RefusedError(
            f"{chosen!r} is no inventory: there is no such file, host or Python module.\n"
            "  The project's own: pyinfra inventory deploys/llm.py (from the top directory)"
        )
    names = [host.name for host in hosts]
    for option, patterns in (("--limit", request.limit), ("--exclude", request.exclude)):
        for pattern in patterns:
            if not _matching(hosts, pattern):
                comma = (
                    f" Give {option} once per pattern, without commas." if "," in pattern else ""
                )
                raise RefusedError(
                    f"{option} {pattern} matches no host of {chosen}.{comma}\n"
                    f"  Hosts: {', '.join(sorted(names))}\n"
                    f"  Groups: {', '.join(sorted(hosts.groups))}"
                )
    chosen_hosts = {name for pattern in request.limit for name in _matching(hosts, pattern)}
    left_out = {name for pattern in request.exclude for name in _matching(hosts, pattern)}
    if not (chosen_hosts or set(names)) - left_out:
        raise RefusedError(f"--exclude leaves no host of {chosen} to work on.")


def _matching(hosts: Inventory, pattern: str) -> list[str]:
    """The names that pyinfra's --limit and --exclude find: a group, or a pattern of names."""
    if pattern in hosts.groups:
        return [host.name for host in hosts.groups[pattern]]
    return [host.name for host in hosts if fnmatch(host.name, pattern)]


def _checked(hosts: Inventory, chosen: str, request: _Request, root: Path) -> Fleet:
    fleet = read_fleet(
        cast(Any, hosts),
        Origin(hosts, chosen, request.group_data).place,
        root=root,
        known=(*connector_data_meta, *_role_data(root)),
    )
    problems = tuple(replace(problem, file=_typed(problem.file)) for problem in fleet.problems)
    if problems:
        raise RefusedError(report(problems), problems) from SpecError(problems)
    return fleet


def _role_data(root: Path) -> set[str]:
    """Names of the data that the roles under *root* read, from their DEFAULTS."""
    names: set[str] = set()
    for init in root.glob("roles/*/__init__.py"):
        try:
            defaults = getattr(import_module(f"roles.{init.parent.name}"), "DEFAULTS", None)
        except ImportError:
            continue  # a deploy that uses this role will say so; here it only spoils a hint
        if isinstance(defaults, Defaults):
            names.update(entry.name for entry in defaults.entries)
    return names


def _typed(file: str) -> str:
    """*file* as the operator would type it: relative where it is under the current directory."""
    path = Path(file)
    if file and path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return file
