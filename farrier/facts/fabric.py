"""What NVSwitch hosts need besides the driver, and the persistence daemon."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farrier.facts.roots import Roots

__all__ = ["Fabric", "FabricFacts", "Service", "parse"]


_MANAGER = "nvidia-fabricmanager.service"
_PERSISTENCED = "nvidia-persistenced.service"
_NVLSM = "nvlsm.service"


@dataclass(frozen=True, slots=True)
class Service:
    """A unit as systemd sees it; every word is "" where systemd could not be asked.

    *load* ``loaded``, ``not-found``, ``masked``; *active* ``active``, ``activating``, ``failed``,
    ``inactive``; *enabled* ``enabled``, ``disabled``, ``static``, ``masked``, "" without a file.
    *restarts* counts automatic restarts since the last start by hand, None if unknown.
    """

    name: str
    load: str = ""
    active: str = ""
    enabled: str = ""
    restarts: int | None = None

    @property
    def present(self) -> bool:
        """Whether there is such a unit."""
        return self.load not in {"", "not-found"}


@dataclass(frozen=True, slots=True)
class FabricFacts:
    """Fabric manager, subnet manager and persistence daemon.

    *manager_version* and *nvlsm_version* are upstream versions (``580.95.05``), None if not
    installed. NVIDIA's nvlsm has no unit of its own in the releases known here (fabric manager's
    unit starts it), so *nvlsm* is usually ``not-found``. *ib_umad_configured* says whether the
    module is loaded at boot (modules-load.d).
    """

    manager_version: str | None = None
    nvlsm_version: str | None = None
    manager: Service = Service(_MANAGER)
    persistenced: Service = Service(_PERSISTENCED)
    nvlsm: Service = Service(_NVLSM)
    ib_umad_loaded: bool = False
    ib_umad_configured: bool = False


_SCRIPT = r"""
for tool in nv-fabricmanager "$USR/bin/nv-fabricmanager"; do
    has "$tool" && { echo "manager $(timeout -k 2 10 "$tool" --version 2>&1)"; break; }
done
dpkg-query -W -f 'package ${Package} ${Version} ${db:Status-Status}\n' \
    'nvidia-fabricmanager*' nvlsm 2>/dev/null
has systemctl && systemctl show -p Id,LoadState,ActiveState,UnitFileState,NRestarts -- \
    __UNITS__ 2>/dev/null |
    sed 's/^/unit /'
[ -d "$SYS/module/ib_umad" ] && echo ib_umad-loaded
grep -qsE '^[[:space:]]*ib_umad[[:space:]]*$' "$ETC/modules" "$ETC"/modules-load.d/*.conf \
    "$RUN"/modules-load.d/*.conf "$USR"/lib/modules-load.d/*.conf && echo ib_umad-configured
true
""".replace("__UNITS__", f"{_MANAGER} {_PERSISTENCED} {_NVLSM}")


class Fabric(FactBase[FabricFacts | None]):
    """:class:`FabricFacts`; None when the host did not answer."""

    def command(self, roots: Roots) -> str:
        """Four processes."""
        return roots.shell() + _SCRIPT

    @staticmethod
    def default() -> FabricFacts | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> FabricFacts:
        """Parse what the script printed."""
        return parse(output)


_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+){1,2}")


def parse(output: Sequence[str]) -> FabricFacts:
    """Parse the script's lines; each begins with the word for what it tells."""
    manager = packaged = nvlsm = None
    units: dict[str, dict[str, str]] = {}
    block: dict[str, str] = {}
    for line in output:
        kind, _, rest = line.partition(" ")
        match kind:
            case "manager" if found := _VERSION.search(rest):
                manager = found[0]
            case "package" if len(fields := rest.split()) == 3 and fields[2] == "installed":
                found = _VERSION.search(fields[1])
                if fields[0] == "nvlsm":
                    nvlsm = found[0] if found else fields[1]
                elif found:
                    packaged = found[0]
            case "unit":
                name, _, value = rest.partition("=")
                if not name:
                    block = {}
                block[name] = value
                if name == "Id":
                    units[value] = block
    return FabricFacts(
        manager or packaged,
        nvlsm,
        _service(_MANAGER, units),
        _service(_PERSISTENCED, units),
        _service(_NVLSM, units),
        "ib_umad-loaded" in output,
        "ib_umad-configured" in output,
    )


def _service(name: str, units: Mapping[str, Mapping[str, str]]) -> Service:
    properties = units.get(name, {})
    restarts = properties.get("NRestarts", "")
    return Service(
        name,
        properties.get("LoadState", ""),
        properties.get("ActiveState", ""),
        properties.get("UnitFileState", ""),
        int(restarts) if restarts.isdecimal() else None,
    )
