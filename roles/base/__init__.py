"""Role ``base``: what every host of the fleet has, whatever it does."""

from __future__ import annotations

from pyinfra import host

from farrier.converge import Absent, Directory, Text, packages, tree
from farrier.converge.packages import LOCK_TIMEOUT
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from roles.base.operations import Place, no_empty_directory, runtime

__all__ = ["DEFAULTS", "base", "remove"]

DEFAULTS = Defaults(
    "base",
    "Farrier's user and the group `farrier`, whose members may use the agent's control socket"
    " (`sudo adduser NAME farrier`); its directories, those that come back at each boot, and a word"
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
CONTROL_GROUP = "farrier"
"""Its members may drain and restart replicas, as root may."""

_SYSUSERS = f"""\
# Written by Farrier's role base.
g {CONTROL_GROUP} -
u {AGENT_USER} - "Farrier's on-host agent" /var/lib/farrier
m {AGENT_USER} {CONTROL_GROUP}
"""

_RECORDS = Place("/var/lib/farrier/replicas", 750, AGENT_USER, AGENT_USER)
_PLACES = (
    Place("/run/farrier", 755, "root", "root"),
    Place("/run/farrier/open", 755, AGENT_USER, AGENT_USER),
    Place("/run/farrier/started", 755, "root", "root"),
    Place("/run/farrier/agent", 755, AGENT_USER, AGENT_USER),
    _RECORDS,
    Place("/var/lib/farrier/agent", 750, AGENT_USER, AGENT_USER),
    Place("/var/lib/farrier/rollout", 750, AGENT_USER, AGENT_USER),
    # The agent may see what is there, and not read it: it is root's, and of engines' memory.
    Place("/var/lib/farrier/evidence", 750, "root", AGENT_USER),
)

# /run/farrier comes from here and not from a unit's RuntimeDirectory=: systemd deletes that one
# when the unit stops, and stopping the agent would close every gate.
_TMPFILES = "\n".join(("# Written by Farrier's role base.", *map(str, _PLACES), ""))

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
    runtime(
        AGENT_USER,
        CONTROL_GROUP,
        _PLACES,
        owned=_RECORDS,
        name="User and run-time directories",
    )


@deploy("Remove base")
def remove() -> None:
    """Take away what :func:`base` made; models in /srv/models, the user and its group stay."""
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
