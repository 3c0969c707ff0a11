"""What NVSwitch hosts need besides the driver, and the persistence daemon."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FabricFacts", "Service"]


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
    manager: Service = Service("nvidia-fabricmanager.service")
    persistenced: Service = Service("nvidia-persistenced.service")
    nvlsm: Service = Service("nvlsm.service")
    ib_umad_loaded: bool = False
    ib_umad_configured: bool = False
