"""What the kernel's log says of NVIDIA's GPUs and switches. Bytes in, values out; no I/O.

A record of ``/dev/kmsg`` is ``prio,seq,usec,flags;text`` and lines with a leading space, which are
not read; the kernel writes what is not printable, a line's end in the text too, as ``\\x0a``
(Documentation/ABI/testing/dev-kmsg). What is no record is taken for the text alone, with or without
the time that dmesg puts before it.

Only what begins a record counts: names of processes, which anybody may choose, stand inside.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from farrier_agent.collectors.pci import normalised
from farrier_agent.gpus import XidEvent
from farrier_agent.wording import printable

__all__ = [
    "FALLEN",
    "MAX_TEXT",
    "SXIDS",
    "Lines",
    "Reader",
    "Record",
    "concerns",
    "is_fatal",
    "record",
]

MAX_TEXT = 300
"""Characters of a line that are kept."""
FALLEN = 79
"""The XID of a GPU that fell off the bus, also where no number is told."""
SXIDS = 10_000
"""SXids, the errors of an NVSwitch, begin here; XIDs of GPUs are below."""

_MAX_LINE = 8192
_HEAD = re.compile(rb"(\d{1,10}),(\d{1,19}),(\d{1,19}),[^;\n]*;")
_ESCAPED = re.compile(rb"\\x([0-9a-fA-F]{2})")
_DMESG = re.compile(rb"(?:<\d{1,3}>)?\[ *(\d{1,12})\.(\d{6})\] ")

_XID = re.compile(
    r"NVRM: Xid \((?:(?P<pci>(?:PCI:)?[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)"
    r"(?: [^()]{0,40})?|[^()]{0,60})\): (?P<number>\d{1,4})\b",
    re.ASCII,
)
_SXID = re.compile(
    r"(?:NVRM: )?nvidia-nvswitch\d{1,3}:? SXid \((?P<pci>[0-9a-zA-Z:.]{1,24})\): "
    r"(?P<number>\d{5})\b",
    re.ASCII,
)
_PCI = r"(?P<pci>(?:PCI:)?[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)"
_FALLEN = re.compile(rf"NVRM: GPU (?:at )?{_PCI}:? (?:GPU )?has fallen off the bus")
_GONE = re.compile(rf"NVRM: The NVIDIA GPU {_PCI}")
_OFF_THE_BUS = re.compile(r"NVRM:[^\n]{0,80}\bfallen off the bus")
_IDENTITY = re.compile(
    r"NVRM: GPU at (?P<pci>PCI:[0-9a-fA-F:.]{10,18}): (?P<uuid>GPU-[0-9a-fA-F-]{36})\s*$"
)
_ACTION = re.compile(r"recovery action changed\b.{0,80}\bto 0x([0-9a-fA-F]{1,8})(?: \(([^)]*)\))?")
_FATAL = re.compile(r"(?<![-\w])Fatal\b")

# in words first: NVML's headers disagree on what 5 is
_ACTIONS = {
    "none": "none",
    "gpu reset required": "gpu_reset",
    "gpu reset": "gpu_reset",
    "pf flr": "gpu_reset",
    "node reboot required": "node_reboot",
    "node reboot": "node_reboot",
    "os reboot": "node_reboot",
    "drain p2p": "drain_p2p",
    "drain and reset": "drain_and_reset",
    "recover imex domain": "imex_domain",
    "bus reset": "bus_reset",
    "system reboot": "system_reboot",
}
_NUMBERS = ("none", "gpu_reset", "node_reboot", "drain_p2p", "drain_and_reset")
_MAX_GPUS = 64
_APART = 8
"""Lines of others that may come between the lines of one message."""


class Record(NamedTuple):
    """One entry. ``seconds`` are since the boot, None where not told, as ``seq`` is."""

    text: str
    seq: int | None = None
    seconds: float | None = None


def concerns(raw: bytes) -> bool:
    """*raw* may say something of NVIDIA's hardware. The rest, nearly all, is not parsed."""
    return b"NVRM: " in raw or b"nvidia-nvswitch" in raw


def record(raw: bytes) -> Record | None:
    """What *raw* is, one record or one line; None for a line that belongs to a record before it."""
    if raw.startswith(b" "):
        raw = raw.lstrip(b" ")
        if not raw.startswith(b"NVRM: "):
            return None
    head = _HEAD.match(raw)
    if head is not None:
        text = raw[head.end() :].partition(b"\n")[0][:_MAX_LINE]
        if b"\\x" in text:
            text = _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)), text)
        return Record(_decoded(text), int(head[2]), int(head[3]) / 1_000_000)
    raw = raw[:_MAX_LINE].partition(b"\n")[0]
    told = _DMESG.match(raw)
    if told is not None:
        return Record(_decoded(raw[told.end() :]), None, int(told[1]) + int(told[2]) / 1_000_000)
    return Record(_decoded(raw))


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


class Lines:
    """Cuts what a file or FIFO gives into lines. One without an end costs no more than a line."""

    def __init__(self) -> None:
        self._rest = b""
        self._skip = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that *chunk* ends, without their ends."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if self._skip and lines:
            del lines[0]  # the rest of one that was too long
            self._skip = False
        if len(self._rest) > _MAX_LINE:
            if not self._skip:
                lines.append(self._rest[:_MAX_LINE])
            self._rest, self._skip = b"", True
        return lines

    def end(self) -> list[bytes]:
        """The line that nothing follows, if there is one."""
        rest, self._rest = self._rest, b""
        skip, self._skip = self._skip, False
        return [rest] if rest and not skip else []

    @property
    def pending(self) -> int:
        """Bytes of a line whose end has not come yet."""
        return len(self._rest)


def is_fatal(text: str) -> bool:
    """The line *text* calls the error fatal, as those of NVLink 5 and of NVSwitch do."""
    return _FATAL.search(text) is not None


class Reader:
    """Finds XIDs in one record after another.

    ``uuids`` are those that the kernel told itself, by PCI address.
    """

    def __init__(self) -> None:
        self.uuids: dict[str, str] = {}
        self._gone: str | None = None
        self._gone_text = ""
        self._apart = 0

    def feed(self, one: Record, at: float) -> XidEvent | None:
        """The XID that *one* tells, at *at* seconds since the epoch."""
        fallen = self._continued(one.text, at) if self._gone is not None else None
        return fallen or _numbered(one.text, at) or self._unnumbered(one.text, at)

    def _unnumbered(self, text: str, at: float) -> XidEvent | None:
        if found := _FALLEN.match(text):
            return _event(at, FALLEN, found["pci"], text)
        if found := _GONE.match(text):
            return self._begun(found["pci"], text, at)
        if (found := _IDENTITY.match(text)) and len(self.uuids) < _MAX_GPUS:
            address = normalised(found["pci"])
            if address is not None:
                self.uuids[address] = found["uuid"]
        return None

    def _begun(self, pci: str, text: str, at: float) -> XidEvent | None:
        # one record in /dev/kmsg; in what was made of it by others, two or three lines
        if "fallen off the bus" in text:
            return _event(at, FALLEN, pci, text)
        self._gone, self._gone_text, self._apart = pci, text, 0
        return None

    def _continued(self, text: str, at: float) -> XidEvent | None:
        self._apart += 1
        pci = self._gone
        if _OFF_THE_BUS.match(text) and not _FALLEN.match(text) and not _XID.match(text):
            self._gone = None
            return _event(at, FALLEN, pci, f"{self._gone_text} {text}")
        if self._apart > _APART:
            self._gone = None
        return None


def _numbered(text: str, at: float) -> XidEvent | None:
    if found := _XID.match(text):
        number = int(found["number"])
        # 0 is noise of some drivers, which means nothing (leptonai/gpud#164)
        action = _action(text) if number == 154 else None
        return _event(at, number, found["pci"], text, action) if number else None
    if (found := _SXID.match(text)) and int(found["number"]) >= SXIDS:
        return _event(at, int(found["number"]), found["pci"], text)
    return None


def _event(
    at: float, number: int, pci: str | None, text: str, action: str | None = None
) -> XidEvent:
    return XidEvent(
        at=at,
        xid=number,
        pci_bus_id=None if pci is None else normalised(pci),
        source="kmsg",
        text=printable(text[:MAX_TEXT]),
        recovery_action=action,
    )


def _action(text: str) -> str | None:
    """What an XID 154 announces, in the words of :class:`~farrier_agent.gpus.Gpu`."""
    found = _ACTION.search(text)
    if found is None:
        return None
    known = _ACTIONS.get((found[2] or "").strip().lower())
    if known is not None:
        return known
    number = int(found[1], 16)
    return _NUMBERS[number] if number < len(_NUMBERS) else "unknown"
