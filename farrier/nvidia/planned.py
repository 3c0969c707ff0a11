"""What the role ``nvidia_driver`` plans for one host, as it hands it to whoever asked. Pure.

The role writes it as a line of JSON to the file that :data:`FILE` names in its environment; a
rollout reads that before it drains anything. Versions are packages' (``580.95.05-0ubuntu1``) where
nothing else is said; :func:`upstream` is what NVML and NVIDIA call them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal

import msgspec

__all__ = ["FILE", "DriverPlan", "read_plans", "tell", "upstream"]

FILE = "FARRIER_DRIVER_PLANS"
"""The variable of the environment that names the file."""


def upstream(version: str) -> str:
    """The upstream part of a package's version: 580.95.05 of ``1:580.95.05-0ubuntu1``."""
    return version.partition(":")[2 if ":" in version else 0].partition("-")[0]


class DriverPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One host.

    ``kind`` is the role's decision; ``refused``: nothing may be done, and ``refusals`` say why, as
    they also do where apt cannot do what was decided. ``words`` are for people. ``version`` of the
    package ``module`` is what would be installed (None: not on offer), from ``source``, in
    ``flavour``; ``offers`` are the versions that the source has, ``steps`` what apt would do.
    ``module_before`` in ``version_before`` is what is installed, and ``back_on_offer`` whether a
    source has that one (None: not known). ``loaded`` is the version in the kernel, upstream's.
    ``inventory`` is what the inventory itself says of the version, whatever was asked for here.
    """

    host: str
    kind: Literal["install", "change", "repair", "keep", "leave", "refused"]
    words: str
    branch: str = ""
    source: str = ""
    flavour: str = ""
    module: str | None = None
    version: str | None = None
    offers: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    module_before: str | None = None
    version_before: str | None = None
    back_on_offer: bool | None = None
    loaded: str | None = None
    inventory: str | None = None

    @property
    def flavour_before(self) -> str | None:
        """The flavour of what is installed."""
        if self.module_before is None:
            return None
        return "open" if "open" in self.module_before else "proprietary"


_plan = msgspec.json.Decoder(DriverPlan)


def tell(plan: DriverPlan) -> None:
    """Add *plan* to the file that was asked for; nothing where none was. Raises OSError."""
    if path := os.environ.get(FILE):
        with open(path, "ab") as file:  # noqa: PTH123 - appended whole, by one write
            file.write(msgspec.json.encode(plan) + b"\n")


def read_plans(lines: Iterable[bytes]) -> dict[str, DriverPlan]:
    """The plans in *lines*, by host; of two of one host the last. Raises msgspec.DecodeError."""
    found = (_plan.decode(line) for line in lines if line.strip())
    return {one.host: one for one in found}
