"""What every host is asked: its system, disks, ports, model directories and clock. One script."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["DISKS", "BasicFacts", "Basics", "Disk", "Listener", "ModelFound", "parse"]

DISKS = ("/", "/var", "/opt")
"""Directories whose file systems are filled: packages, logs and caches, environments."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A process that listens on *port*: its *program*, and the *unit* that it runs in."""

    port: int
    program: str
    pid: int
    unit: str


@dataclass(frozen=True, slots=True)
class Disk:
    """Free MiB and free inodes of the file system that holds a directory, mounted at *mount*.

    *inodes* is None where the file system has no fixed number of them (btrfs).
    """

    free_mb: int
    inodes: int | None = None
    mount: str = "/"


@dataclass(frozen=True, slots=True)
class ModelFound:
    """A model's directory: *state* is ``ok``, ``no-directory``, ``no-config.json`` or ``shards``.

    *weights_mb* is the size of its safetensors in MiB, None without any. With ``shards``,
    *missing* are those that its index names and that are not there (the first few).
    """

    state: str
    weights_mb: int | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Basics:
    """A host as it was found.

    *disks* and *models* map the directories that were asked about; *complete* are the paths of
    programs that are installed already. *time* is the host's, in seconds since 1970.
    """

    system: str
    disks: Mapping[str, Disk] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    models: Mapping[str, ModelFound] = field(default_factory=dict)
    complete: frozenset[str] = frozenset()
    time: float | None = None


_SCRIPT = r"""
. /etc/os-release; echo "system $ID ${VERSION_ID:-}"
for d in __DISKS__; do
    until [ -d "$d" ]; do d=${d%/*}; d=${d:-/}; done
    at="$at $d"
done
df -m --output=avail,iavail,itotal,target $at | { # few processes: every converge waits for them
    read -r _
    while read -r mb inodes total mount; do
        case $total in 0 | -) inodes=-;; esac
        echo "disk $mb $inodes $mount"
    done
}
for p in __PROGRAMS__; do [ -e "$p/.complete" ] && echo "complete $p"; done
for d in __MODELS__; do
    mb=- state=ok
    set -- "$d"/*.safetensors
    if [ -e "$1" ]; then
        bytes=0
        for size in $(stat -Lc %s "$@"); do bytes=$((bytes + size)); done
        mb=$((bytes / 1048576))
    fi
    if [ ! -d "$d" ]; then state=no-directory;
    elif [ ! -e "$d/config.json" ]; then state=no-config.json;
    elif [ -f "$d/model.safetensors.index.json" ]; then
        for shard in $(grep -o ': *"[^"/]*\.safetensors"' "$d/model.safetensors.index.json" |
            tr -d '": ' | sort -u); do
            [ -e "$d/$shard" ] || { state=shards; echo "missing $shard $d"; }
        done
    fi
    echo "model $state $mb $d"
done
unit_of() { # PID: the innermost service or scope of its cgroup; by the shell alone, as it is fast
    while read -r path; do
        while [ "$path" != "${path%/*}" ]; do
            case "${path##*/}" in *.service | *.scope) unit=${path##*/}; return;; esac
            path=${path%/*}
        done
    done < "/proc/$1/cgroup"
}
ss -Hltnp 2>/dev/null | while read -r _ _ _ local _ users; do
    pid=${users#*pid=}; pid=${pid%%,*}; program=${users#*\"}; program=${program%%\"*}
    unit=
    [ -e "/proc/$pid/cgroup" ] && unit_of "$pid"
    echo "listen ${local##*:} ${pid:-0} ${unit:--} $program"
done
echo "time $(date +%s)"
"""

MOST_MISSING = 3
"""Shards that are named; the rest is counted."""


class BasicFacts(FactBase[Basics | None]):
    """:class:`Basics`; None when the host would not answer (sudo refused, no shell)."""

    def command(self, models: Sequence[str] = (), programs: Sequence[str] = ()) -> str:
        """One shell script, about model directories and paths of programs."""
        values = {"__DISKS__": DISKS, "__MODELS__": models, "__PROGRAMS__": programs}
        script = _SCRIPT
        for name, paths in values.items():
            script = script.replace(name, " ".join(shlex.quote(path) for path in paths))
        return script.strip()

    @staticmethod
    def default() -> Basics | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> Basics:
        """Parse what the script printed."""
        return parse(output)


def parse(output: Sequence[str]) -> Basics:
    """Parse the script's lines; each begins with the word for what it tells."""
    system, time = "", None
    disks: list[Disk] = []
    models: dict[str, ModelFound] = {}
    missing: dict[str, list[str]] = {}
    listeners, complete = [], set()
    for line in output:
        kind, _, rest = line.partition(" ")
        match kind:
            case "system":
                system = rest.strip()
            case "time":
                time = float(rest)
            case "disk":
                free, inodes, mount = rest.split(" ", 2)
                disks.append(Disk(int(free), int(inodes) if inodes.isdigit() else None, mount))
            case "complete":
                complete.add(rest)
            case "missing":
                shard, _, path = rest.partition(" ")
                missing.setdefault(path, []).append(shard)
            case "model":
                state, mb, path = rest.split(" ", 2)
                absent = tuple(missing.get(path, ()))
                models[path] = ModelFound(state, int(mb) if mb.isdigit() else None, absent)
            case "listen":
                port, pid, unit, program = (rest + " ").split(" ", 3)
                listeners.append(
                    Listener(int(port), program.strip(), int(pid) if pid.isdigit() else 0, unit)
                )
    by_path = dict(zip(DISKS, disks, strict=False))
    return Basics(system, by_path, tuple(listeners), models, frozenset(complete), time)
