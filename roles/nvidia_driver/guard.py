"""What keeps an installed driver as it is: apt's preferences and unattended-upgrades' blacklist.

Both are written before the first package is changed, and stand through an interruption. Holds
(``apt-mark hold``) come on top once all is installed; apt-get runs with
``--allow-change-held-packages`` so that they need not be lifted first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from roles.nvidia_driver.names import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from roles.nvidia_driver.settings import Settings

__all__ = [
    "BLACKLIST",
    "MODULES_LOAD",
    "NOUVEAU",
    "NOUVEAU_TEXT",
    "OPTIONS",
    "PREFERENCES",
    "blacklist",
    "module_options",
    "preferences",
    "trial_preferences",
]

PREFERENCES = "/etc/apt/preferences.d/farrier-nvidia"
BLACKLIST = "/etc/apt/apt.conf.d/60farrier-nvidia"
NOUVEAU = "/etc/modprobe.d/farrier-nouveau.conf"
OPTIONS = "/etc/modprobe.d/farrier-nvidia.conf"
MODULES_LOAD = "/etc/modules-load.d/farrier-nvidia.conf"

_HEAD = "# Written by Farrier's role nvidia_driver.\n"

NOUVEAU_TEXT = f"""\
{_HEAD}# nouveau takes the GPUs before NVIDIA's driver can.
blacklist nouveau
options nouveau modeset=0
"""


def trial_preferences(version: str) -> str:
    """apt's preferences while a plan is made: all packages of *version* before any other.

    *version* may be a placeholder that is filled in on the host.
    """
    return f"Package: {' '.join(FAMILIES)}\nPin: version {version}*\nPin-Priority: 1001\n"


def preferences(packages: Mapping[str, str]) -> str:
    """apt's preferences that keep *packages* (name to version) and let none of the others in.

    The first record that matches a version counts (apt_preferences(5)), so the general one is last.
    1001 lets apt go back to a version as well.
    """
    kept = "".join(
        f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n"
        for name, version in sorted(packages.items())
    )
    others = (
        "Explanation: other versions, and what this host has no use for\n"
        f"Package: {' '.join(FAMILIES)}\nPin: release *\nPin-Priority: -1\n"
    )
    return _HEAD + "# Change the driver by deploys/driver.py.\n\n" + kept + others


def blacklist(packages: Mapping[str, str]) -> str:
    """unattended-upgrades' Package-Blacklist (regular expressions) with *packages*."""
    names = "".join(f'    "^{re.escape(name)}$";\n' for name in sorted(packages))
    names = names.replace("\\-", "-").replace("\\", "\\\\")
    head = "// Written by Farrier's role nvidia_driver.\nUnattended-Upgrade::Package-Blacklist {\n"
    return f"{head}{names}}};\n"


def module_options(settings: Settings) -> str | None:
    """A file for modprobe.d, None where no option is set.

    Debian's own packages call the modules ``nvidia-current…`` and load them by install commands,
    so that options for ``nvidia`` alone would not reach them.
    """
    lines = []
    for name, value in sorted(settings.module_options.items()):
        module, _, option = name.rpartition(".")
        module = module or "nvidia"
        lines.append(f"options {module} {option}={value}\n")
        if settings.source == "debian":
            renamed = module.replace("nvidia", "nvidia-current", 1).replace("_", "-")
            lines.append(f"options {renamed} {option}={value}\n")
    return _HEAD + "".join(lines) if lines else None
