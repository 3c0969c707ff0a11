"""From what apt printed to cause and next step, one case per way it fails."""

from __future__ import annotations

import pytest

from farrier.converge.packages import InstalledPackages, explain_apt

LISTS_LOCK = """\
Reading package lists...
E: Could not get lock /var/lib/apt/lists/lock. It is held by process 4711 (apt-get)
E: Unable to lock directory /var/lib/apt/lists/
"""
FRONTEND_LOCK = """\
E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 815 (unattended-upgr)
E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend)
"""
DPKG_LOCK = "dpkg: error: dpkg frontend lock was locked by another process with pid 99\n"
FULL = """\
Unpacking nginx (1.22.1-9) ...
dpkg: error processing archive nginx.deb (--unpack):
 cannot copy extracted data: failed to write (No space left on device)
"""
NO_ROOM = "E: You don't have enough free space in /var/cache/apt/archives/.\n"
UNKNOWN = "E: Unable to locate package nginx\n"
OFFLINE = (
    "Err:1 http://deb.debian.org/debian bookworm InRelease\n  Could not resolve 'deb.debian.org'\n"
)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (LISTS_LOCK, ["lock", "4711 (apt-get)", "ps "]),
        (FRONTEND_LOCK, ["lock", "815 (unattended-upgr)", "ps "]),
        (DPKG_LOCK, ["lock", "pid 99", "ps "]),
        (FULL, ["disk is full", "df -h"]),
        (NO_ROOM, ["disk is full", "df -h"]),
        (UNKNOWN, ["does not know nginx", "sources.list"]),
        (OFFLINE, ["could not be reached", "deb.debian.org", "apt-get update"]),
        ("E: Sub-process /usr/bin/dpkg returned an error code (1)\n", ["error code (1)"]),
        ("", ["apt could not install"]),
    ],
)
def test_explanations(output: str, told: list[str]) -> None:
    text = explain_apt(output, ["nginx", "curl"])
    assert "nginx, curl" in text
    assert text.endswith("run the deploy again")
    assert [words for words in told if words not in text] == []


def test_only_what_is_fully_installed_counts() -> None:
    lines = ["ii |nginx", "iU |curl", "rc |gcc", "iF |sudo", "un |vim"]
    assert InstalledPackages().process(lines) == {"nginx"}
