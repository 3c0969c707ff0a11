"""Two versions of the nginx package that a host's archive has, exchanged as apt does it."""

from __future__ import annotations

from tests.roles.fleet import Fleet

__all__ = ["downgrade", "upgrade"]

_APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y"
_PACKAGES = ("nginx", "nginx-common")


def downgrade(fleet: Fleet, host: str) -> None:
    """Install the version that the suite was released with, which is not the newest one."""
    fleet.root(host, "apt-get -qq update")
    madison = fleet.ssh(host, "apt-cache madison nginx").splitlines()
    versions = [line.split("|")[1].strip() for line in madison]
    assert len(versions) > 1, f"{host}: the archive has one version of nginx: {madison}"
    older = " ".join(f"{name}={versions[-1]}" for name in _PACKAGES)
    fleet.root(host, f"{_APT} --allow-downgrades install {older}")


def upgrade(fleet: Fleet, host: str) -> None:
    """Install the newest one. nginx runs from its file then, and not from a deleted one."""
    fleet.root(host, f"{_APT} install {' '.join(_PACKAGES)}")
    assert "deleted" not in fleet.root(host, "ls -l /proc/$(cat /run/nginx.pid)/exe")
