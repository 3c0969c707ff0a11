"""What makes a base tree this one host: written into its disk once, before its first boot."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from farrier.lab.base import USER
from farrier.lab.definitions import HostDefinition, LabDefinition
from farrier.lab.disks import mount_overlay, remove_tree, unmount_below
from farrier.lab.network import uplink_mtu
from farrier.lab.state import LabFiles, read_json, write_private
from farrier.lab.surroundings import Surroundings
from farrier.lab.tiny_model import write_tiny_model

__all__ = ["TINY_MODEL", "Host", "prepare_disk", "recorded_base"]

TINY_MODEL = "/srv/models/tiny"
"""Where every ``gpu`` host of a lab finds the tiny model."""

SSHD = """# A lab host: one way in.
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
HostKey /etc/ssh/ssh_host_ed25519_key
MaxStartups 100
"""

# OpenSSH 9.8 bars addresses that fail too often; a lab's tests fail on purpose.
SSHD_FROM = {"trixie": "PerSourcePenalties no\n"}


@dataclass(frozen=True)
class Host:
    """One host of a lab. *root* is its / as seen from the operator's machine."""

    name: str
    address: IPv4Address
    suite: str
    groups: tuple[str, ...]
    root: Path


def recorded_base(lab: LabDefinition, host: HostDefinition, files: LabFiles) -> Path | None:
    """The base tree under *host*'s disk; None without a finished disk that still fits *host*."""
    made_from = read_json(files.host(host.name).made_from) or {}
    base = Path(made_from.get("base", "/nonexistent"))
    fits = made_from.get("suite") == host.suite
    fits = fits and made_from.get("address") == str(lab.address(host))
    return base if fits and base.is_dir() else None


def prepare_disk(
    lab: LabDefinition, host: HostDefinition, files: LabFiles, base: Path, around: Surroundings
) -> None:
    """Mount *host*'s disk; make it first, from *base*, unless there is a finished one.

    Nothing of the host may run. What an earlier, interrupted command left is thrown away.
    """
    disk = files.host(host.name)
    if finished_on := recorded_base(lab, host, files):
        mount_overlay(disk, finished_on)
        return
    remove_tree(disk.directory)
    mount_overlay(disk, base)
    _write(disk.merged, _files(lab, host, files) | dict(around.files))
    for name, target in around.links.items():
        link = disk.merged / name
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    _private(disk.merged / "etc/ssh/ssh_host_ed25519_key", files.host_keys / host.name)
    home = disk.merged / "home" / USER / ".ssh"
    home.mkdir(mode=0o700)
    authorized = home / "authorized_keys"
    shutil.copyfile(files.user_key.with_suffix(".pub"), authorized)
    for path in (home, authorized):
        os.chown(path, 1000, 1000)
    if "gpu" in host.groups:
        write_tiny_model(disk.merged / TINY_MODEL.lstrip("/"))
    # Written last: a disk without it is unfinished.
    record = {"suite": host.suite, "address": str(lab.address(host)), "base": str(base)}
    write_private(disk.made_from, json.dumps(record) + "\n")


def release_disk(files: LabFiles, host: str) -> None:
    """Unmount *host*'s disk; its content stays."""
    unmount_below(files.host(host).directory)


def _files(lab: LabDefinition, host: HostDefinition, files: LabFiles) -> dict[str, bytes]:
    """The host's own configuration, by path without the leading slash."""
    everybody = "".join(f"{lab.address(other)}\t{other.name}\n" for other in lab.hosts)
    network = f"""[Match]
Name=host0

[Link]
MTUBytes={uplink_mtu()}

[Network]
Address={lab.address(host)}/{lab.network.prefixlen}
Gateway={lab.gateway}
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
    return {
        name: text.encode()
        for name, text in {
            "etc/hostname": f"{host.name}\n",
            "etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{everybody}",
            "etc/machine-id": f"{uuid.uuid4().hex}\n",
            "etc/systemd/network/10-host0.network": network,
            "etc/ssh/sshd_config.d/00-lab.conf": SSHD + SSHD_FROM.get(host.suite, ""),
            "etc/ssh/ssh_host_ed25519_key.pub": (files.host_keys / f"{host.name}.pub").read_text(),
        }.items()
    }


def _write(root: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it may be a link of the base tree's, to anywhere
        path.write_bytes(content)


def _private(path: Path, source: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(source.read_bytes())
