"""How containers on this host would get at its GPUs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.facts.roots import Roots

__all__ = ["CdiSpec", "ContainerFacts", "Containers", "parse"]


@dataclass(frozen=True, slots=True)
class CdiSpec:
    """A CDI specification of NVIDIA devices.

    *driver_version* is the one whose libraries it mounts, None if it names none. After a change of
    driver the file is stale: its containers do not start.
    """

    path: str
    driver_version: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """The container toolkit and those who use it.

    *toolkit* is nvidia-ctk's version, None if absent. *runtimes* are the container engines that
    are installed (``docker``, ``containerd``, ``podman``, ``crio``), *configured* those of them
    whose configuration names NVIDIA's runtime. *dev_char_missing* are NVIDIA's device nodes
    without a link in /dev/char: ``systemctl daemon-reload`` takes them away from running
    containers (NVIDIA/nvidia-container-toolkit issue 48).
    """

    toolkit: str | None = None
    runtimes: tuple[str, ...] = ()
    configured: tuple[str, ...] = ()
    cdi: tuple[CdiSpec, ...] = ()
    dev_char_missing: tuple[str, ...] = ()


# The device nodes' numbers are printed by stat in hexadecimal, as /dev/char has them in decimal.
_SCRIPT = r"""
has nvidia-ctk && echo "toolkit $(nvidia-ctk --version 2>/dev/null)"
for name in docker containerd podman crio; do has $name && echo "runtime $name"; done
while read -r name files; do
    # shellcheck disable=SC2086
    eval "grep -qs nvidia $files" && echo "configured $name"
done <<END
docker "\$ETC"/docker/daemon.json
containerd "\$ETC"/containerd/config.toml "\$ETC"/containerd/conf.d/*.toml
podman "\$ETC"/containers/containers.conf "\$ETC"/containers/containers.conf.d/*.conf
crio "\$ETC"/crio/crio.conf "\$ETC"/crio/crio.conf.d/*
END
for f in "$ETC"/cdi/* "$RUN"/cdi/*; do
    grep -qs 'nvidia\.com/' "$f" || continue
    library=$(grep -ohsE 'lib(cuda|nvidia-ml)\.so\.[0-9]+(\.[0-9]+)+' "$f" | head -n 1)
    echo "cdi ${library:--} $f"
done
for f in "$DEV"/nvidia* "$DEV"/nvidia-caps/*; do
    [ -c "$f" ] || continue
    set -- $(stat -Lc '%t %T' "$f")
    [ -e "$DEV/char/$((0x$1)):$((0x$2))" ] || echo "no-link $f"
done; true
"""


class Containers(FactBase[ContainerFacts | None]):
    """:class:`ContainerFacts`; None when the host did not answer."""

    def command(self, roots: Roots) -> str:
        """A process or two for each specification and device node."""
        return roots.shell() + _SCRIPT

    @staticmethod
    def default() -> ContainerFacts | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> ContainerFacts:
        """Parse what the script printed."""
        return parse(output)


_VERSION = re.compile(r"version ([0-9]+\.[0-9][^\s,]*)")
_LIBRARY = re.compile(r"\.so\.([0-9]+(?:\.[0-9]+)+)$")


def parse(output: Sequence[str]) -> ContainerFacts:
    """Parse the script's lines; each begins with the word for what it tells."""
    toolkit = None
    lists: dict[str, list[str]] = {"runtime": [], "configured": [], "no-link": []}
    cdi = []
    for line in output:
        kind, _, rest = line.partition(" ")
        match kind:
            case "toolkit" if found := _VERSION.search(rest):
                toolkit = found[1]
            case "cdi" if " " in rest:
                library, _, path = rest.partition(" ")
                version = _LIBRARY.search(library)
                cdi.append(CdiSpec(path, version[1] if version else None))
            case "runtime" | "configured" | "no-link" if rest:
                lists[kind].append(rest)
    configured = tuple(name for name in lists["configured"] if name in lists["runtime"])
    return ContainerFacts(
        toolkit, tuple(lists["runtime"]), configured, tuple(cdi), tuple(lists["no-link"])
    )
