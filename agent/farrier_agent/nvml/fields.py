"""NVML's field values: many readings in one call, each with a return code and a type of its own.

The call succeeds if any of its values did, and a value whose code was not looked at reads as 0
(NVIDIA/DCGM#311, dcgm-exporter#460); read by another type than it says, it is nonsense (papi#564).

Field identifiers are written here as numbers. They "never change", says nvml.h, yet those from 251
to 273 did between CUDA 12.9, 13.0 and 13.0 Update 1: in the headers of 12.9 the time of thermal
slowdown is 251, and 269 is a profile of power smoothing. So 251 to 268 are not asked for at all,
and 269 to 271 only of drivers from 580.82 on, the first of 13.0 Update 1.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from farrier_agent.nvml.probe import Probe

__all__ = ["CLOCK_EVENTS", "FAST", "LINK_FAST", "LINK_SLOW", "SLOW", "Batch", "Field", "decode"]

ALL_LINKS = 0xFFFFFFFF
"""As the scope of an NVLink counter: the sum over all links."""

RENUMBERED = (580, 82)
"""The first driver (major, minor) that has the field identifiers of CUDA 13.0 Update 1."""


class Field(NamedTuple):
    """One field value. *name* is a key of :data:`farrier_agent.nvml.values.RANGES`, or a clock
    event. *scope* is a link where there are several. A *wide* one must come in 64 bits: in 32 a
    counter of bytes or nanoseconds wraps within seconds. *since* is the first driver to ask.
    """

    name: str
    id: int
    wide: bool = False
    scope: int = 0
    since: tuple[int, ...] = ()


CLOCK_EVENTS = (  # nanoseconds since the driver was loaded
    Field("sw_power_cap", 74, wide=True),
    Field("sync_boost", 76, wide=True),
    Field("low_utilization", 78, wide=True),
    Field("reliability", 79, wide=True),
    Field("sw_thermal", 269, wide=True, since=RENUMBERED),
    Field("hw_thermal", 270, wide=True, since=RENUMBERED),
    Field("hw_power_brake", 271, wide=True, since=RENUMBERED),
)

FAST = (
    *CLOCK_EVENTS,
    Field("memory_temperature_celsius", 82),
    Field("energy_joules_total", 83, wide=True),  # mJ
    Field("pcie_replays_total", 94),
    Field("nvlink_transmit_bytes_total", 138, wide=True, scope=ALL_LINKS),  # KiB
    Field("nvlink_receive_bytes_total", 139, wide=True, scope=ALL_LINKS),
    Field("remapped_corrected", 142),
    Field("remapped_uncorrected", 143),
    Field("row_remap_pending", 144),
    Field("row_remap_failed", 145),
    Field("pcie_correctable_errors_total", 173),
    Field("pcie_non_fatal_errors_total", 179),
    Field("pcie_fatal_errors_total", 180),
    Field("power_watts", 186),  # mW, as the next
    Field("power_limit_watts", 190),
    Field("pcie_transmit_bytes_total", 197, wide=True),
    Field("pcie_receive_bytes_total", 198, wide=True),
    Field("recovery_action", 230),
)
"""Asked in every reading."""

SLOW = (
    Field("retired_corrected", 29),
    Field("retired_uncorrected", 30),
    Field("retired_pages_pending", 31),
    # mW; said to take 3.3 ms where the power now takes 3 us, and the energy's rate tells it too
    Field("power_average_watts", 185),
)
"""Asked in the slow tier."""

LINKS = Field("nvlinks", 91)
"""How many NVLinks the GPU has."""

LINK_FAST = (
    Field("nvlink_state", 165),
    Field("nvlink_recovery_errors_total", 162),
    Field("nvlink_crc_errors_total", 163),
    Field("nvlink_recovery_events", 215),  # on NVLink 5 (Blackwell) instead of 162
)
LINK_SLOW = (
    Field("nvlink_replay_errors_total", 161),
    # NVLink 5 has these instead of 161, of 163, and of the sums 138 and 139
    Field("nvlink_link_transmit_bytes", 202, wide=True),
    Field("nvlink_link_receive_bytes", 204, wide=True),
    Field("nvlink_effective_errors_total", 219),
    Field("nvlink_symbol_errors_total", 221),
)
"""Asked of every link."""

_DOUBLE = struct.Struct("<d")
_LAYOUT = struct.Struct("<IIqqiiQ")  # nvmlFieldValue_t; both platforms of the driver are such
_UNTOUCHED = 27  # NVML_ERROR_NOT_READY, until the driver has written its own code
_UNSUPPORTED = frozenset({2, 3, 13, 25, 26})  # 2: older drivers do not know the identifier
_LOST = frozenset({15, 28})
_WIDE = frozenset({0, 2, 3, 4})  # NVML_VALUE_TYPE_*: double, ulong, ulonglong, longlong

Key = tuple[str, int]


_DECODERS: dict[int, Callable[[int], float]] = {  # NVML_VALUE_TYPE_*
    0: lambda raw: float(_DOUBLE.unpack(raw.to_bytes(8, "little"))[0]),
    1: lambda raw: raw & 0xFFFFFFFF,  # unsigned int
    2: lambda raw: raw,  # unsigned long
    3: lambda raw: raw,  # unsigned long long
    4: lambda raw: raw - 2**64 if raw >= 2**63 else raw,  # long long
    5: lambda raw: ((raw & 0xFFFFFFFF) ^ 2**31) - 2**31,  # int
    6: lambda raw: raw & 0xFFFF,  # unsigned short
}


def decode(value_type: int, raw: int) -> float | None:
    """The number in *raw*, the eight bytes of an ``nvmlValue_t``; None if the type is unknown."""
    decoder = _DECODERS.get(value_type)
    return None if decoder is None else decoder(raw)


def of_driver(fields: Iterable[Field], driver: tuple[int, ...]) -> list[Field]:
    """Those of *fields* that mean what they say on *driver*, ``()`` for an unknown one."""
    return [field for field in fields if not field.since or driver >= field.since]


def of_links(fields: Iterable[Field], count: int) -> list[Field]:
    """*fields* of each of *count* links."""
    return [field._replace(scope=link) for field in fields for link in range(count)]


class Batch:
    """Field values that are asked together. What the GPU does not support drops out for good."""

    def __init__(self, nvml: Any, fields: Iterable[Field]) -> None:
        self._type = nvml.c_nvmlFieldValue_t
        self._fields: list[Field] = []
        self._keep(list(fields))

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def read(self, probe: Probe) -> dict[Key, float]:
        """The values by name and scope. Raises as :meth:`Probe.pointer`."""
        if not self._fields:
            return {}
        self._view[:] = self._blank
        number = ctypes.c_int(len(self._fields))
        code = probe.pointer("nvmlDeviceGetFieldValues", number, self._array)
        if code is None:
            self._keep([])
        if code != 0:
            return {}
        found: dict[Key, float] = {}
        gone: set[Field] = set()
        samples = _LAYOUT.iter_unpack(self._view)
        for field, key, (_, _, _, _, type_, own, raw) in zip(
            self._fields, self._keys, samples, strict=True
        ):
            if own == 0:
                value = decode(type_, raw)
                if value is None:
                    probe.odd(field.name, f"a value of type {type_}")
                elif field.wide and type_ not in _WIDE:
                    gone.add(field)
                else:
                    found[key] = value
            elif own in _UNSUPPORTED:
                gone.add(field)
            elif own in _LOST:
                probe.lose("nvmlDeviceGetFieldValues", own)
            else:
                probe.failed(f"field {field.id} of nvmlDeviceGetFieldValues", own)
        if gone:
            self._keep([field for field in self._fields if field not in gone])
        return found

    def _keep(self, fields: list[Field]) -> None:
        self._fields = fields
        self._keys = {(field.name, field.scope): None for field in fields}
        self._array = (self._type * len(fields))()
        for place, field in zip(self._array, fields, strict=True):
            place.fieldId, place.scopeId = field.id, field.scope
            place.nvmlReturn = _UNTOUCHED
        self._view = memoryview(self._array).cast("B")
        self._blank = bytes(self._view)
