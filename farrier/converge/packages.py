"""Debian packages, asked for by name and installed in one transaction."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge.commands import Script, last_lines
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.converge.commands import Commands

__all__ = ["LOCK_TIMEOUT", "InstalledPackages", "explain_apt", "packages", "waiting"]

LOCK_TIMEOUT = 120
"""Seconds to wait for another apt before giving up; unattended-upgrades is often at work."""


class InstalledPackages(FactBase[set[str]]):
    """Which of *names* are installed (``dpkg``'s state ``ii``)."""

    def command(self, names: Sequence[str]) -> str:
        """One process."""
        quoted = " ".join(shlex.quote(name) for name in names)
        status = r"${db:Status-Abbrev}|${Package}\n"
        return f"dpkg-query -W -f '{status}' -- {quoted} 2>/dev/null; true"

    @staticmethod
    def default() -> set[str]:
        """None of them."""
        return set()

    def process(self, output: list[str]) -> set[str]:
        """Keep what is fully installed."""
        return {line.split("|")[1] for line in output if line.startswith("ii")}


@operation(asks=lambda names: Question(InstalledPackages, {"names": names}, several="names"))
def packages(names: Sequence[str]) -> Commands:
    """Install what is missing of *names*; never upgrades or removes.

    + names: as apt knows them
    """
    installed = answer()
    missing = [name for name in names if name not in installed]
    if not missing:
        host.noop(f"packages are already installed: {', '.join(names)}")
        return
    lock_timeout = int(host.data.get("apt_lock_timeout", LOCK_TIMEOUT))
    wanted = " ".join(shlex.quote(name) for name in missing)
    # needrestart would restart engines and nginx behind our back: here it only lists.
    yield Script(
        f"""
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1
{waiting(lock_timeout)}
unlocked apt-get -q update
unlocked dpkg --configure -a --force-confold
apt-get -q -o DPkg::Lock::Timeout={lock_timeout} install -y --no-install-recommends \\
    -o Dpkg::Options::=--force-confold {wanted}
""",
        explain=lambda output: explain_apt(output, missing),
    )


def waiting(lock_timeout: int) -> str:
    """A shell function ``unlocked COMMAND…``, which tries again while a lock is held.

    For locks that apt itself does not wait for. Gives up after *lock_timeout* seconds.
    """
    return f"""\
deadline=$(($(date +%s) + {lock_timeout}))
unlocked() {{ # COMMAND...: again and again while another program holds a lock that it needs
    until out=$("$@" 2>&1); do
        case "$out" in *"Could not get lock"* | *"frontend lock was locked"*)
            if [ "$(date +%s)" -lt "$deadline" ]; then sleep 1; continue; fi;;
        esac
        echo "$out" >&2
        exit 1
    done
}}"""


def explain_apt(output: str, names: Sequence[str]) -> str:
    """Cause and next step of a failed ``apt-get``, from what it printed."""
    wanted = ", ".join(names)
    lines = last_lines(output, 6)
    if "Could not get lock" in output or "dpkg frontend lock" in output:
        holder = next((line for line in output.splitlines() if "held by" in line), lines)
        return (
            f"apt's lock is held by another program, {wanted} not installed: {holder.strip()}\n"
            "Look at: ps -ef | grep -E 'apt|dpkg|unattended'; wait for it or end it, then run the"
            " deploy again"
        )
    if "No space left on device" in output or "enough free space" in output:
        return (
            f"the disk is full, {wanted} not installed:\n{lines}\n"
            "Look at: df -h / /var /opt; free some space, then run the deploy again"
        )
    if "Unable to locate package" in output or "has no installation candidate" in output:
        return (
            f"apt does not know {wanted}:\n{lines}\n"
            "Look at: /etc/apt/sources.list.d on the host (Debian's main component is needed),"
            " then run the deploy again"
        )
    if "Could not resolve" in output or "Failed to fetch" in output:
        return (
            f"apt's sources could not be reached, {wanted} not installed:\n{lines}\n"
            "Look at: apt-get update on the host (DNS, proxy, mirror), then run the deploy again"
        )
    return (
        f"apt could not install {wanted}:\n{lines}\n"
        f"Look at: apt-get install {' '.join(names)} on the host, then run the deploy again"
    )
