"""Role ``base``: what every host of the fleet has, whatever it does."""

from __future__ import annotations

from pyinfra import host

from farrier.converge import Absent, Directory, Text, packages, tree
from farrier.converge.packages import LOCK_TIMEOUT
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from roles.base.operations import no_empty_directory, runtime

__all__ = ["DEFAULTS", "base", "remove"]

DEFAULTS = Defaults(
    "base",
    "Farrier's user, its directories, run-time directories that come back at each boot, and a word"
    " to needrestart, which then restarts no engine, nginx, agent or fabric manager by itself.",
    (
        Default(
            "base_packages",
            ["ca-certificates", "dbus", "iproute2", "python3-minimal"],
            "Debian packages that every host needs.",
        ),
        Default(
            "apt_lock_timeout",
            LOCK_TIMEOUT,
            "Seconds to wait for another program that holds apt's or dpkg's lock, such as"
            " unattended-upgrades; every role's packages wait so long.",
        ),
    ),
)

AGENT_USER = "farrier-agent"

_SYSUSERS = f"""\
# Written by Farrier's role base.
u {AGENT_USER} - "Farrier's on-host agent" /var/lib/farrier
"""

# /run/farrier comes from here and not from a unit's RuntimeDirectory=: systemd deletes that one
# when the unit stops, and stopping the agent would close every gate.
_TMPFILES = f"""\
# Written by Farrier's role base.
d /run/farrier 0755 root root -
d /run/farrier/open 0755 {AGENT_USER} {AGENT_USER} -
d /run/farrier/started 0755 root root -
d /run/farrier/agent 0755 {AGENT_USER} {AGENT_USER} -
"""

# Without it needrestart, which apt calls after each upgrade, restarts what uses a replaced library:
# in Ubuntu 24.04 without being told to, in Debian where a site says so. 0 = it names them, a person
# restarts them. A fabric manager that exits ends every CUDA job of its host
# (ABORT_CUDA_JOBS_ON_FM_EXIT=1 in its configuration). The file is written where needrestart is not
# installed, too: it counts from the moment that it is.
NEEDRESTART = r"""# Written by Farrier's role base.
$nrconf{override_rc}{qr(^engine-.+\.service$)} = 0;
$nrconf{override_rc}{qr(^nginx\.service$)} = 0;
$nrconf{override_rc}{qr(^farrier-.+\.service$)} = 0;
$nrconf{override_rc}{qr(^nvidia-(fabricmanager|persistenced)\.service$)} = 0;
$nrconf{override_rc}{qr(^nvlsm\.service$)} = 0;
"""


@deploy("Base")
def base() -> None:
    """Install the packages, create the user and the directories."""
    packages(name="Packages", names=DEFAULTS.read(host.data)["base_packages"])
    tree(
        Text("/etc/sysusers.d/farrier.conf", _SYSUSERS),
        Text("/etc/tmpfiles.d/farrier.conf", _TMPFILES),
        Text("/etc/needrestart/conf.d/farrier.conf", NEEDRESTART),
        Directory("/etc/farrier"),
        Directory("/opt/farrier"),
        Directory("/srv/models"),
        Directory("/var/lib/farrier"),
        Directory("/var/lib/farrier/applied"),
        name="Directories",
    )
    runtime(AGENT_USER, "/run/farrier/agent", name="User and run-time directories")


@deploy("Remove base")
def remove() -> None:
    """Take away what :func:`base` made; models in /srv/models and the user stay."""
    tree(
        Absent("/etc/sysusers.d/farrier.conf"),
        Absent("/etc/tmpfiles.d/farrier.conf"),
        Absent("/etc/needrestart/conf.d/farrier.conf"),
        Absent("/etc/farrier"),
        Absent("/opt/farrier"),
        Absent("/var/lib/farrier"),
        Absent("/run/farrier"),
        name="Directories",
    )
    no_empty_directory("/etc/needrestart/conf.d", name="needrestart's directory")
