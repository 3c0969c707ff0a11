"""Base trees: a bare Debian per suite, built once, then the lower layer of every host's overlay.

A tree carries the digest of the recipe that made it in its name: a changed recipe makes a new tree
and never pulls an old one from under running hosts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from farrier.lab.commands import run
from farrier.lab.disks import remove_tree
from farrier.lab.errors import LabError
from farrier.lab.state import locked

__all__ = ["CACHE", "USER", "base_tree"]

CACHE = Path("/var/cache/farrier/base")

USER = "farrier"
"""Who the operator is on a lab host: uid 1000, sudo without a password."""

PACKAGES = (
    "systemd,systemd-sysv,dbus,openssh-server,sudo,python3-minimal,iproute2,ca-certificates,curl"
)

# A lab's disks are thrown away anyway: dpkg, now and in the hosts, waits for none of its files
# to reach the disk. On a busy machine a tree took minutes otherwise.
DPKG_OPTION = "--dpkgopt=force-unsafe-io"

CUSTOMIZE = f"""set -eu
rm -f "$1"/etc/ssh/ssh_host_*
chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 {USER}
echo '{USER} ALL=(ALL) NOPASSWD: ALL' > "$1/etc/sudoers.d/{USER}"
chmod 0440 "$1/etc/sudoers.d/{USER}"
# Nobody sits at a lab host's console.
chroot "$1" systemctl -q mask console-getty.service
# There is no file system of its own to remount, and on a busy machine it fails now and then.
chroot "$1" systemctl -q mask systemd-remount-fs.service
chroot "$1" systemctl -q enable systemd-networkd.service ssh.service
"""


def base_tree(suite: str, report: Callable[[str], None] = lambda _: None) -> Path:
    """The base tree of *suite*, built now if it is not cached (about 20 s and 260 MB)."""
    mirror = os.environ.get("FARRIER_LAB_MIRROR")
    recipe = "\n".join((suite, PACKAGES, DPKG_OPTION, CUSTOMIZE))
    tree = CACHE / f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    if tree.is_dir():
        return tree
    with locked(CACHE / f"{suite}.lock", report) as lock:
        if tree.is_dir():
            return tree
        report(f"building the base tree of {suite} with mmdebstrap (once per machine)")
        draft = CACHE / f"{suite}.draft"
        remove_tree(draft)
        try:
            run(
                [
                    "mmdebstrap",
                    "--quiet",
                    "--variant=minbase",
                    f"--include={PACKAGES}",
                    DPKG_OPTION,
                    f"--customize-hook={CUSTOMIZE}",
                    suite,
                    draft,
                    *([mirror] if mirror else []),
                ],
                timeout=900,
                pass_fds=[lock],  # so that one left alone by a kill -9 is waited for, not joined
            )
            draft.rename(tree)
        except LabError as error:
            remove_tree(draft)
            raise LabError(
                f"no base tree of {suite}: {error}\n  check: apt-get update; another mirror: "
                "FARRIER_LAB_MIRROR=http://… farrier lab up"
            ) from error
    return tree
