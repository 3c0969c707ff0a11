"""What was asked of a rollout, for all of its hosts."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Options"]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all hosts. Seconds are seconds.

    ``driver`` is the version that is wanted (None: the inventory's), ``no_way_back`` that a host is
    changed although its present one could not be put back. A replica is measured for ``measure``
    seconds before and after (0: not), and may be slower by the share ``tolerance``. ``gpus`` are
    UUIDs, ``diag`` the level of a diagnosis, ``replicas`` those that use these GPUs.
    """

    limit: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    pending: bool = False
    batch: str = "1"
    max_unavailable: int | None = None
    max_in_flight: int = 256
    first: tuple[str, ...] = ()
    allow_gap: bool = False
    soak: float = 0.0
    deadline: float | None = None
    on_deadline: Literal["extend", "abort", "force"] | None = None
    patience: float = 900.0
    lease: float = 60.0
    hook_before: str | None = None
    hook_after: str | None = None
    canary: int | None = None
    hold: float = 0.0
    inventory: str = "inventory"
    command: tuple[str, ...] = ()
    reboot_seconds: float = 1200.0
    driver: str | None = None
    no_way_back: bool = False
    measure: float = 20.0
    tolerance: float = 0.10
    gpus: tuple[str, ...] = ()
    diag: int | None = None
    replicas: tuple[str, ...] = ()
