"""What a host's files say of the units of its engines: now, before, and put back. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
from farrier_agent.rollout.previous import DIRECTORY, MARK, Mark

__all__ = ["UnitSeen", "units_in"]

_mark = msgspec.json.Decoder(Mark)
_LINE = re.compile(
    r"^(?P<place>/.*)/engine-(?P<replica>[a-z0-9-]+)(?P<kind>\.[a-z-]+):(?P<said>.*)$"
)
_HASH = re.compile(r"^X-FarrierConfigHash=([0-9a-f]{64})$")


@dataclass(frozen=True)
class UnitSeen:
    """Hashes of configurations: of the unit on the disk, of the one before it, of the one that was
    put back last. None where there is none, or none that can be read.
    """

    unit: str | None = None
    previous: str | None = None
    put_back: str | None = None


def units_in(lines: str) -> Mapping[str, UnitSeen]:
    """What grep's *lines* say, by replica; what cannot be read says nothing."""
    found: dict[str, UnitSeen] = {}
    for line in lines.splitlines():
        it = _LINE.match(line)
        if it is None:
            continue
        one = found.get(it["replica"], UnitSeen())
        if it["kind"] == MARK:
            one = replace(one, put_back=_marked(it["said"]))
        elif digest := _HASH.match(it["said"]):
            before = it["place"] == str(DIRECTORY)
            one = replace(one, **{"previous" if before else "unit": digest[1]})
        found[it["replica"]] = one
    return found


def _marked(said: str) -> str | None:
    try:
        return _mark.decode(said).to
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
