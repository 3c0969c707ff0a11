"""Versions of the nginx package that a host's archive has, exchanged as apt does it."""

from __future__ import annotations

from tests.roles.fleet import Fleet

__all__ = ["downgrade", "upgrade"]

_APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y"
_PACKAGES = ("nginx", "nginx-common")


def downgrade(fleet: Fleet, host: str) -> None:
    """Install the version that the suite was released with, where it is not the newest one."""
    fleet.root(host, "apt-get -qq update")
    madison = fleet.ssh(host, "apt-cache madison nginx").splitlines()
    oldest = madison[-1].split("|")[1].strip()
    older = " ".join(f"{name}={oldest}" for name in _PACKAGES)
    fleet.root(host, f"{_APT} --allow-downgrades --reinstall install {older}")


def upgrade(fleet: Fleet, host: str) -> None:
    """Install the newest one, or the same again: dpkg runs what it runs for an upgrade.

    Afterwards nginx runs from its present file, and not from a deleted one.
    """
    fleet.root(host, f"{_APT} --reinstall install {' '.join(_PACKAGES)}")
    assert "deleted" not in fleet.root(host, "ls -l /proc/$(cat /run/nginx.pid)/exe")
