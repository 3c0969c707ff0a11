"""How containers on a host would get at its GPUs, and what is left to do about it. Pure but facts.

Two ways lead a container to a GPU: a CDI specification, which names device nodes and libraries of
one driver version, and NVIDIA's runtime, which the container engine has to be told of.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "OWN_SPEC",
    "REFRESH",
    "UNLINKED",
    "Devices",
    "DevicesFact",
    "Runtime",
    "Runtimes",
    "cdi_commands",
    "parse_devices",
    "parse_runtimes",
]

OWN_SPEC = "/etc/cdi/nvidia.yaml"
"""The specification that Farrier makes where the toolkit does not make one by itself."""

REFRESH = "nvidia-cdi-refresh.service"
"""Since toolkit 1.18 it makes /run/cdi/nvidia.yaml at each boot, and after an installation."""

SPECS = (OWN_SPEC, "/etc/cdi/nvidia.json", "/run/cdi/nvidia.yaml", "/run/cdi/nvidia.json")
"""Where they are looked for; an engine prefers those in /run (CDI's SPEC.md)."""

CONFIGURATION = {
    "docker": "/etc/docker/daemon.json",
    "containerd": "/etc/containerd",
    "crio": "/etc/crio",
}
"""Engines that ``nvidia-ctk runtime configure`` knows, and where it writes; podman uses CDI."""


UNLINKED = """\
unlinked() { # prints each of NVIDIA's device nodes that has no link in /dev/char, and the link
    for node in /dev/nvidia* /dev/nvidia-caps/*; do
        [ -c "$node" ] || continue
        link=/dev/char/$(printf '%d:%d' $(stat -c '0x%t 0x%T' -- "$node"))
        [ -e "$link" ] || echo "$node $link"
    done
}
"""


@dataclass(frozen=True, slots=True)
class Devices:
    """*loaded* is the running driver's version, None without one.

    *specs* are the CDI specifications: path and the driver versions that each names (one, else it
    is broken). *refresh* says whether the toolkit has :data:`REFRESH`. *unlinked* are NVIDIA's
    device nodes that have no link in /dev/char: ``systemctl daemon-reload`` takes those away from
    running containers (https://github.com/NVIDIA/nvidia-container-toolkit/issues/48).
    """

    loaded: str | None = None
    specs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    refresh: bool = False
    unlinked: tuple[str, ...] = ()


class DevicesFact(FactBase[Devices | None]):
    """The :class:`Devices` of a host, *proc* and *dev* being its /proc and /dev."""

    def command(self, proc: str = "/proc") -> str:
        """Reads only; *proc* is the host's /proc."""
        version = shlex.quote(f"{proc}/driver/nvidia/version")
        names = r"libcuda\.so\.[0-9]+\.[0-9.]*[0-9]"
        return f"""\
echo asked  # no output at all means no answer
sed -n 's/^NVRM version:.* \\([0-9][0-9]*\\.[0-9][0-9.]*\\) .*/loaded \\1/p' \\
    {version} 2>/dev/null
for spec in {" ".join(SPECS)}; do
    [ -e "$spec" ] || continue
    echo spec "$spec" $(grep -oE '{names}' "$spec" | sed 's/^libcuda[.]so[.]//' | sort -u)
done
[ -z "$(systemctl list-unit-files --no-legend {REFRESH} 2>/dev/null)" ] || echo refresh
{UNLINKED}unlinked | sed 's/^/unlinked /'"""

    @staticmethod
    def default() -> Devices | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> Devices:
        """Parse what :meth:`command` printed."""
        return parse_devices(output)


def parse_devices(output: Sequence[str]) -> Devices:
    """Parse lines of a word and its values."""
    words = [line.split() for line in output]
    return Devices(
        loaded=next((word[1] for word in words if word[0] == "loaded"), None),
        specs=tuple((word[1], tuple(word[2:])) for word in words if word[0] == "spec"),
        refresh=["refresh"] in words,
        unlinked=tuple(word[1] for word in words if word[0] == "unlinked"),
    )


def cdi_commands(now: Devices) -> list[str]:
    """Shell commands that make every specification name the loaded driver, and that there is one.

    None without a loaded driver: there is nothing yet that a specification could name.
    """
    if now.loaded is None:
        return []
    stale = [path for path, versions in now.specs if versions != (now.loaded,)]
    generated = [path for path in stale if path.startswith("/etc/")]
    commands = [f"nvidia-ctk cdi generate --output={path}" for path in generated]
    refreshed = any(path.startswith("/run/") for path in stale)
    if now.refresh and (refreshed or not now.specs):
        # It remains active after its exit: start alone would do nothing.
        commands.append(f"systemctl restart {REFRESH}")
    elif not now.specs:
        commands.append(f"mkdir -p /etc/cdi\nnvidia-ctk cdi generate --output={OWN_SPEC}")
    elif refreshed:
        commands += [
            f"nvidia-ctk cdi generate --output={path}" for path in stale if path not in generated
        ]
    return commands


@dataclass(frozen=True, slots=True)
class Runtime:
    """A container engine: whether it is *installed*, *configured* for NVIDIA's runtime in its
    files, and *unaware* of it, because its daemon runs since before those files were written.
    """

    installed: bool = False
    configured: bool = False
    unaware: bool = False


class Runtimes(FactBase[dict[str, Runtime] | None]):
    """The :class:`Runtime` of each of *names*; None when the host could not be asked."""

    def command(self, names: Sequence[str]) -> str:
        """A file that is younger than the start of its daemon is not read yet."""
        return "\n".join(["echo asked", *(_runtime_script(name) for name in names), "true"])

    @staticmethod
    def default() -> dict[str, Runtime] | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> dict[str, Runtime]:
        """Parse what :meth:`command` printed."""
        return parse_runtimes(output)


def _runtime_script(name: str) -> str:
    files = shlex.quote(CONFIGURATION[name])
    # docker tells what it knows, also after a reload; the others only when they were started.
    knows = "docker info -f '{{json .Runtimes}}' 2>/dev/null | grep -q nvidia"
    aware = f"! {{ {knows}; }} &&" if name == "docker" else ""
    return f"""\
systemctl cat {name}.service >/dev/null 2>&1 && echo {name} installed
files=$(grep -rlsF nvidia-container-runtime {files})
if [ -n "$files" ]; then
    echo {name} configured
    since=$(systemctl show --timestamp=us -P ActiveEnterTimestamp {name}.service)
    if systemctl -q is-active {name}.service && {aware} \\
        [ -n "$(find $files -newermt "$since" 2>/dev/null)" ]; then echo {name} unaware; fi
fi"""


def parse_runtimes(output: Sequence[str]) -> dict[str, Runtime]:
    """Parse lines of an engine's name and a word."""
    words = {tuple(line.split()) for line in output}
    names = {word[0] for word in words if len(word) == 2}
    return {
        name: Runtime(
            (name, "installed") in words, (name, "configured") in words, (name, "unaware") in words
        )
        for name in names
    }
