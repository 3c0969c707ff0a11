"""The operator's way into a host: OpenSSH with the lab's own configuration."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

__all__ = ["HostState", "Login"]

# The boot's end is awaited for a bounded time: an engine may take minutes to start, and the host
# is usable meanwhile. sudo, because systemctl's private socket answers before D-Bus does.
ASK = """system=$(sudo timeout {patience} systemctl is-system-running{wait})
echo ${{system:-starting}}
cut -d ' ' -f 1 /proc/uptime
systemctl show --property=UserspaceTimestampMonotonic --value
sudo systemctl list-units --failed --plain --no-legend | cut -d ' ' -f 1
"""


@dataclass(frozen=True)
class HostState:
    """What is to be seen of a host. *booted*: its machine runs and would survive a reboot.

    *system* is what ``systemctl is-system-running`` says, absent without SSH; *uptime* in seconds
    since the host's own boot; *ssh_error* is what ssh said instead.
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
    ssh_error: str | None = None


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
        return subprocess.run(
            argv,
            input=input if input is not None else "",
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout,
        )

    def boot_id(self, host: str, check: bool = True) -> str | None:
        """The boot_id of *host*; None when it does not answer and *check* is off."""
        done = self.run(host, "cat /proc/sys/kernel/random/boot_id", check=check)
        return done.stdout.strip() or None if done.returncode == 0 else None

    def ask(self, silent: HostState, patience: int = 0) -> HostState:
        """*silent* with what the host says of itself, within *patience* seconds booted to the end.

        Returned as it is, perhaps with ``ssh_error``, when the host says nothing.
        """
        if not _listens(silent.address):
            return silent
        question = ASK.format(patience=patience or 10, wait=" --wait" if patience else "")
        try:
            done = self.run(silent.name, question, check=False, timeout=patience + 30)
        except subprocess.TimeoutExpired:
            return replace(silent, ssh_error=f"no answer within {patience + 30} s")
        if done.returncode != 0:
            return replace(silent, ssh_error=done.stderr.strip())
        system, kernel, began, *failed = done.stdout.split()
        return replace(
            silent,
            ssh=True,
            system=system,
            # The kernel is the operator's; a host's time begins with its PID 1 (microseconds).
            uptime=round(float(kernel) - int(began) / 1e6, 1),
            failed_units=tuple(failed),
        )


def _listens(address: IPv4Address) -> bool:
    """Whether SSH's port is open: cheaper to ask than to start ssh in vain."""
    try:
        socket.create_connection((str(address), 22), timeout=1).close()
    except OSError:
        return False
    return True
