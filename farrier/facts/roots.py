"""Where facts look: the directories of the running host, or of a tree that stands for one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields

__all__ = ["Roots"]


@dataclass(frozen=True, slots=True)
class Roots:
    """The directories that facts are read from, and the kernel that counts as the running one.

    Only tests and looks at a mounted image name others than these. *kernel* empty means what the
    kernel itself says in ``PROC/sys/kernel/osrelease``. Programs (dpkg, systemctl, nvidia-smi) are
    found by PATH and are not moved by any of it.
    """

    proc: str = "/proc"
    sys: str = "/sys"
    dev: str = "/dev"
    etc: str = "/etc"
    modules: str = "/lib/modules"
    kernel: str = ""
    boot: str = "/boot"
    run: str = "/run"
    usr: str = "/usr"
    var: str = "/var"

    def shell(self) -> str:
        """The head of a fact's POSIX shell script.

        Assigns PROC, SYS, … and KERNEL, and prints the kernel, so that every fact says something.
        """
        assignments = [
            f"{field.name.upper()}={shlex.quote(getattr(self, field.name))}"
            for field in fields(self)
        ]
        return "\n".join([*assignments, _HEAD])


_HEAD = r"""
export LC_ALL=C
[ -n "$KERNEL" ] || read -r KERNEL 2>/dev/null < "$PROC/sys/kernel/osrelease" || KERNEL=$(uname -r)
echo "kernel $KERNEL"
has() { command -v "$1" >/dev/null 2>&1; }
""".strip()
