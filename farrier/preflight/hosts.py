"""``farrier preflight``: every host of the inventory looked at, side by side, without a deploy.

The inventory is resolved by pyinfra's own command line (groups, group data, config.py with strict
host keys), and the hosts are connected to as a deploy connects to them. Nothing is changed.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gevent
from paramiko import SSHException
from pyinfra.api import Config, State, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.context import ctx_config, ctx_host, ctx_inventory
from pyinfra_cli import cli

from farrier.connecting import SUDO_EXPLAINED
from farrier.explain import NEXT
from farrier.inventory import RefusedError, fleet_of
from farrier.preflight.found import Case
from farrier.preflight.judge import judge
from farrier.preflight.look import Look, questions
from farrier.preflight.reach import NO_ANSWER, not_connected, not_looked_at, sudo_refused
from farrier.preflight.verdict import Verdict
from farrier.preflight.wanted import wanted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyinfra.api import Host

    from farrier.spec import Fleet

__all__ = ["PATIENCE", "Site", "open_site"]

PATIENCE = 90
"""Seconds for a host's answer once it is connected. nvidia-smi has 30 of them on its own, each of
apt's sources 6, all at once; a driver that hangs leaves it waiting for ever."""


@dataclass(frozen=True)
class Site:
    """The chosen hosts of an inventory, and what it wants of them."""

    state: State
    fleet: Fleet
    hosts: tuple[Host, ...]

    def verdicts(self) -> Iterator[Verdict]:
        """The verdict on each host, in the order in which they answer."""
        at_work = {self.state.pool.spawn(self._verdict, host): host for host in self.hosts}
        try:
            for done in gevent.iwait(list(at_work)):
                yield cast("Verdict", done.get())
        finally:
            gevent.killall(list(at_work))

    def _verdict(self, host: Host) -> Verdict:
        with ctx_host.use(host):
            try:
                host.connect(show_errors=False, raise_exceptions=True)
            except ConnectError as error:
                return not_connected(host.name, error)
            try:
                return self._look(host)
            finally:
                host.disconnect()

    def _look(self, host: Host) -> Verdict:
        meant = wanted(self.fleet.hosts[host.name], host.data)
        command = StringCommand(Look().command(questions(meant, all_of_them=True)))
        ssh = f"ssh {host.data.get('ssh_hostname') or host.name}"
        try:
            with gevent.Timeout(PATIENCE, TimeoutError(f"no answer within {PATIENCE} s")):
                done, output = host.run_shell_command(command, **self._as_root(host))
        except (OSError, EOFError, SSHException, PyinfraError) as error:
            told = f"{error or type(error).__name__}{NEXT}{ssh} sudo dmesg | tail -n 30"
            return not_looked_at(host.name, NO_ANSWER, told)
        found = Look().process(output.stdout_lines) if done else None
        if found is None:
            told = host.connector_data.get(SUDO_EXPLAINED) or (
                f"it did not let itself be looked at: {' '.join(output.stderr_lines[-3:])}"
                f"{NEXT}{ssh} sudo -n true"
            )
            user = host.data.get("ssh_user") or getpass.getuser()
            return sudo_refused(host.name, told, user)
        return judge(Case(meant, found))

    def _as_root(self, host: Host) -> dict[str, Any]:
        arguments, _ = pop_global_arguments(
            self.state, host, {"_sudo": host.data.get("ssh_user") != "root", "_timeout": PATIENCE}
        )
        return {key: value for key, value in arguments.items() if key in CONNECTOR_ARGUMENT_KEYS}


def open_site(
    inventory: str, limit: Sequence[str] = (), *, same_sudo_password: bool = False
) -> Site:
    """The hosts of *inventory* that *limit* (names, patterns, groups) picks; all without it.

    To be called within a click command whose parameters say ``wants_fleet`` and ``limit``. Raises
    :class:`farrier.inventory.RefusedError` for an inventory that has mistakes.
    """
    if not Path("config.py").is_file():
        raise RefusedError(
            f"there is no config.py in {Path.cwd()}: this is not a project's directory.\n"
            "  Go to the directory that has config.py, inventory/ and deploys/."
        )
    state = cli._setup_state(0, True)
    config = cast("Any", Config)()
    cast("Any", ctx_config).set(config)
    nothing = dict.fromkeys(_SETTINGS)
    cli._set_config(config, "config.py", **nothing | {"same_sudo_password": same_sudo_password})
    hosts = cli.make_inventory(
        inventory, cwd=state.cwd, override_data={}, group_data_directories=()
    )
    cast("Any", ctx_inventory).set(hosts)
    state.init(hosts, config, initial_limit=cli._apply_inventory_limit(hosts, limit))
    chosen = sorted(
        (host for host in hosts if state.is_host_in_limit(host)), key=lambda one: str(one.name)
    )
    return Site(state, fleet_of(hosts), tuple(chosen))


_SETTINGS = (
    "sudo",
    "sudo_user",
    "use_sudo_password",
    "use_sudo_login",
    "same_sudo_password",
    "su_user",
    "dzdo",
    "dzdo_user",
    "parallel",
    "shell_executable",
    "fail_percent",
    "yes",
    "diff",
    "retry",
    "retry_delay",
)
"""Settings of pyinfra's command line; None of each is its default."""
