"""What a lab host takes over from the operator's machine, to reach what that machine reaches.

DNS servers, apt's transport settings, certificates of the site's own, pip's configuration. Each is
taken over only where it differs from what a bare Debian has.
"""

from __future__ import annotations

import configparser
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from farrier.lab.commands import run
from farrier.lab.errors import LabError

__all__ = ["Surroundings", "apt_settings", "pip_settings", "resolv_conf", "surroundings"]

BUNDLE = Path("etc/ssl/certs/ca-certificates.crt")
LOCAL_CERTIFICATES = Path("usr/local/share/ca-certificates")
PIP_FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
PIP_VARIABLES = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "PIP_TRUSTED_HOST",
    "PIP_PROXY",
    "PIP_DEFAULT_TIMEOUT",
)


@dataclass(frozen=True)
class Surroundings:
    """*files* and *links* by their path in the host, without the leading slash.

    *directories* are to be seen in the host under the same path, read-only.
    """

    files: Mapping[str, bytes]
    links: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[Path, ...] = ()


def surroundings(
    root: Path = Path("/"), environ: Mapping[str, str] = os.environ, apt_dump: str | None = None
) -> Surroundings:
    """Everything that the hosts take over from the machine whose files lie under *root*."""
    files = {"etc/resolv.conf": resolv_conf(root, environ).encode()}
    dump = run(["apt-config", "dump"]) if apt_dump is None else apt_dump
    if apt := apt_settings(dump, environ):
        files["etc/apt/apt.conf.d/90operator"] = apt.encode()
    pip, directories = pip_settings(root, environ)
    if pip:
        files["etc/pip.conf"] = pip.encode()
    local = sorted((root / LOCAL_CERTIFICATES).glob("**/*.crt"))
    files |= {str(path.relative_to(root)): path.read_bytes() for path in local}
    bundle = root / environ.get("SSL_CERT_FILE", "").lstrip("/")
    if local or (bundle.is_file() and bundle != root / BUNDLE):
        source = bundle if bundle.is_file() else root / BUNDLE
        files[str(BUNDLE)] = source.read_bytes()
    return Surroundings(files, _certificate_links(root, local), directories)


def _certificate_links(root: Path, local: list[Path]) -> dict[str, str]:
    """The links that update-ca-certificates made here for the *local* certificates.

    OpenSSL finds certificates by them. Running that program in every host gives the same, for a
    second of CPU time each.
    """
    pems = {f"{path.stem}.pem": f"/{path.relative_to(root)}" for path in local}
    directory = root / BUNDLE.parent
    links = {str(BUNDLE.with_name(name)): target for name, target in pems.items()}
    for path in directory.iterdir() if pems else ():
        if path.is_symlink() and path.readlink().name in pems and path.name not in pems:
            links[str(BUNDLE.with_name(path.name))] = path.readlink().name
    return links


def resolv_conf(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str:
    """Name servers that a lab host can reach. Raises :class:`LabError` when there are none.

    A server on loopback is of no use to another host; of systemd-resolved's stub the servers
    behind it are taken (systemd-resolved.service(8)).
    """
    if given := environ.get("FARRIER_LAB_DNS"):
        return "".join(f"nameserver {address}\n" for address in given.split(","))
    for path in (root / "etc/resolv.conf", root / "run/systemd/resolve/resolv.conf"):
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        servers = re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)
        if any(not server.startswith("127.") and server != "::1" for server in servers):
            return text
    raise LabError(
        "/etc/resolv.conf names only a server on loopback, which lab hosts cannot reach\n"
        "  run: FARRIER_LAB_DNS=<address of a DNS server> farrier lab up"
    )


def apt_settings(dump: str, environ: Mapping[str, str] = os.environ) -> str:
    """The lines of ``apt-config dump`` that say how archives are reached and judged.

    Not which indexes are wanted, nor hooks: those belong to the programs installed there.
    """
    wanted = re.compile(
        r"Acquire::(https?|socks|Check-|Max-ValidTime|Min-ValidTime|Retries|Force|Languages|"
        r"GzipIndexes|Queue-Mode|PDiffs|By-Hash)",
        re.IGNORECASE,
    )
    lines = [line for line in dump.splitlines() if wanted.match(line) and not line.endswith(' "";')]
    for scheme in ("http", "https"):
        proxy = environ.get(f"{scheme}_proxy")
        if proxy and not any(f"::{scheme}::Proxy " in line for line in lines):
            lines.append(f'Acquire::{scheme}::Proxy "{proxy}";')
    return "".join(f"{line}\n" for line in lines)


def pip_settings(
    root: Path = Path("/"), environ: Mapping[str, str] = os.environ
) -> tuple[str, tuple[Path, ...]]:
    """A ``pip.conf`` for the hosts, and the local directories that it names.

    The order of precedence is pip's: site, user, ``PIP_CONFIG_FILE``, variables.
    """
    merged = configparser.RawConfigParser()
    home = environ.get("HOME", "/root")
    names = [name.replace("~", home, 1) for name in PIP_FILES]
    names += [environ["PIP_CONFIG_FILE"]] if environ.get("PIP_CONFIG_FILE") else []
    merged.read([root / name.lstrip("/") for name in names], encoding="utf-8")
    if not merged.has_section("global"):
        merged.add_section("global")
    for variable in PIP_VARIABLES:
        if value := environ.get(variable):
            merged.set("global", variable.removeprefix("PIP_").lower().replace("_", "-"), value)
    if merged.has_option("global", "cert"):  # its content is taken over, its place is Debian's
        merged.set("global", "cert", f"/{BUNDLE}")
    for section in merged.sections():
        if section != "global" or not merged.items(section):
            merged.remove_section(section)
    if not merged.sections():
        return "", ()
    text = io.StringIO()
    merged.write(text)
    return text.getvalue(), _local_directories(root, merged)


def _local_directories(root: Path, pip: configparser.RawConfigParser) -> tuple[Path, ...]:
    found = []
    for option in ("find-links", "index-url", "extra-index-url"):
        for word in pip.get("global", option, fallback="").split():
            path = Path(word.removeprefix("file://"))
            # a "simple" index links to files beside it
            path = path.parent if path.name == "simple" and path.parent != Path("/") else path
            if path.is_absolute() and (root / str(path).lstrip("/")).is_dir():
                found.append(path)
    return tuple(dict.fromkeys(found))
