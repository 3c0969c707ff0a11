"""SSH keys of the lab and of its hosts, made before anything boots, and the clients' API keys."""

from __future__ import annotations

import secrets
from ipaddress import IPv4Address

from farrier.lab.base import USER
from farrier.lab.certificates import make_certificates
from farrier.lab.commands import run
from farrier.lab.definitions import LabDefinition
from farrier.lab.state import LabFiles, write_private

__all__ = ["API_KEY_NAMES", "make_keys"]

API_KEY_NAMES = ("demo",)
"""Names under which the lab's clients get an API key."""


def make_keys(lab: LabDefinition, files: LabFiles) -> None:
    """Make the keys that are missing, and what ssh needs to trust these hosts and no others."""
    files.host_keys.mkdir(exist_ok=True)
    pairs = {files.user_key: f"farrier lab {lab.name}"}
    pairs |= {files.host_keys / host.name: host.name for host in lab.hosts}
    for key, comment in pairs.items():
        if not key.exists() or not key.with_suffix(".pub").exists():
            key.unlink(missing_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", key])
    if not files.api_keys.exists():
        lines = [f'{name} = "sk-farrier-{secrets.token_urlsafe(32)}"\n' for name in API_KEY_NAMES]
        write_private(files.api_keys, "[keys]\n" + "".join(lines))
    make_certificates(lab, files)
    known, config = [], []
    for host in lab.hosts:
        kind, key_text = (files.host_keys / f"{host.name}.pub").read_text("ascii").split()[:2]
        known.append(f"{host.name},{lab.address(host)} {kind} {key_text}\n")
        config.append(_ssh_host(host.name, lab.address(host)))
    write_private(files.known_hosts, "".join(known))
    write_private(files.ssh_config, "".join(config) + _ssh_defaults(files))


def _ssh_host(name: str, address: IPv4Address) -> str:
    return f"Host {name} {address}\n    HostName {address}\n\n"


def _ssh_defaults(files: LabFiles) -> str:
    return f"""Host *
    User {USER}
    IdentityFile {files.user_key}
    IdentitiesOnly yes
    IdentityAgent none
    PreferredAuthentications publickey
    StrictHostKeyChecking yes
    UserKnownHostsFile {files.known_hosts}
    GlobalKnownHostsFile /dev/null
    HostKeyAlgorithms ssh-ed25519
    ConnectTimeout 5
    ServerAliveInterval 10
    LogLevel ERROR
"""
