"""The operator's way into a host: OpenSSH with the lab's own configuration."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from farrier.lab.definitions import HostDefinition

__all__ = ["HostState", "Login"]

ASK = """sudo systemctl is-system-running --wait
cut -d ' ' -f 1 /proc/uptime
systemctl show --property=UserspaceTimestampMonotonic --value
sudo systemctl list-units --failed --plain --no-legend | cut -d ' ' -f 1
"""


@dataclass(frozen=True)
class HostState:
    """What is to be seen of a host. *booted*: its machine runs and would survive a reboot.

    *system* is what ``systemctl is-system-running`` says, absent without SSH; *uptime* in seconds.
    """

    name: str
    address: IPv4Address
    suite: str
    groups: tuple[str, ...]
    booted: bool
    ssh: bool = False
    system: str | None = None
    uptime: float | None = None
    failed_units: tuple[str, ...] = ()


class Login:
    """SSH to the hosts that *ssh_config* knows."""

    def __init__(self, ssh_config: Path) -> None:
        self.ssh_config = ssh_config

    def run(
        self,
        host: str,
        cmd: str,
        input: str | None = None,  # noqa: A002 - subprocess' own word
        check: bool = True,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the shell command *cmd* on *host*; subprocess' result and exceptions."""
        argv = ["ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes", host, "--", cmd]
        stdin = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        return subprocess.run(
            argv, capture_output=True, text=True, check=check, timeout=timeout, **stdin
        )

    def boot_id(self, host: str, check: bool = True) -> str | None:
        """The boot_id of *host*; None when it does not answer and *check* is off."""
        done = self.run(host, "cat /proc/sys/kernel/random/boot_id", check=check)
        return done.stdout.strip() or None if done.returncode == 0 else None

    def state(self, host: HostDefinition, address: IPv4Address, booted: bool) -> HostState:
        """What *host* says of itself, after its boot has ended if it is booting now."""
        silent = HostState(host.name, address, host.suite, host.groups, booted)
        if not booted or not _listens(address):
            return silent
        try:
            done = self.run(host.name, ASK, check=False, timeout=90)
        except subprocess.TimeoutExpired:
            return silent
        if done.returncode != 0:
            return silent
        system, kernel, started, *failed = done.stdout.split()
        # The kernel is the operator's; the host's time begins with its PID 1 (microseconds).
        uptime = round(float(kernel) - int(started) / 1e6, 1)
        return HostState(
            host.name, address, host.suite, host.groups, booted, True, system, uptime,
            tuple(failed),
        )  # fmt: skip


def _listens(address: IPv4Address) -> bool:
    """Whether SSH's port is open: cheaper to ask than to start ssh in vain."""
    try:
        socket.create_connection((str(address), 22), timeout=1).close()
    except OSError:
        return False
    return True
