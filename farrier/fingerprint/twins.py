"""Hosts of one kind, compared with each other by their fingerprints. Pure.

Twins have the same GPUs, by name and number. Of what should be alike among them the most frequent
value is taken as right (two of two that differ: neither is), and a replica's speed is compared with
the median of the *other* twins that serve the same model with the same engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from farrier_agent.fingerprint.made import Fingerprint, GpuPrint, Speed

__all__ = ["TOLERANCE", "Odd", "Paced", "odd_ones", "paces"]

TOLERANCE = 0.1
"""The share by which a replica may be slower than its twins."""

_OF_HOST = ("kernel", "driver_version", "cuda_version")
_OF_GPU = (
    "vbios_version",
    "inforom_version",
    "memory_total_bytes",
    "pcie_width",
    "pcie_max_generation",
    "nvlinks",
    "nvlinks_up",
    "power_limit_watts",
    "sm_max_clock_hertz",
    "memory_max_clock_hertz",
    "ecc_enabled",
    "mig_enabled",
    "compute_mode",
)


@dataclass(frozen=True)
class Odd:
    """On ``host`` (GPU ``gpu``, by index) ``what`` is ``value``; ``twins`` have ``usual``."""

    host: str
    what: str
    value: str
    usual: str
    twins: int
    gpu: int | None = None

    def __str__(self) -> str:
        """For a person, in one line."""
        where = f"{self.host} GPU {self.gpu}" if self.gpu is not None else self.host
        return f"{where}: {self.what} is {self.value}, {self.twins} twins have {self.usual}"


@dataclass(frozen=True)
class Paced:
    """How fast a replica is beside its twins.

    ``share`` is its tokens per second over the median of the others, None where it has none.
    """

    host: str
    speed: Speed
    twins: int
    share: float | None

    def slow(self, tolerance: float = TOLERANCE) -> bool:
        """It is slower than its twins by more than *tolerance*."""
        return self.share is not None and self.share < 1 - tolerance

    def __str__(self) -> str:
        """For a person, in one line."""
        where = f"{self.host}/{self.speed.replica}"
        if self.share is None:
            return f"{where}: {self.speed.tokens_per_second:.1f} tokens/s, it has no twin"
        percent = round(100 * (self.share - 1))
        how = "as fast as" if percent == 0 else f"{abs(percent)} % {_side(percent)}"
        return f"{where}: {self.speed.tokens_per_second:.1f} tokens/s, {how} its twins"


def _side(percent: int) -> str:
    return "below" if percent < 0 else "above"


def odd_ones(prints: Mapping[str, Fingerprint]) -> Iterator[Odd]:
    """What differs among twins; *prints* are by host."""
    for hosts in _kinds(prints).values():
        if len(hosts) < 2:
            continue
        for name in _OF_HOST:
            yield from _odd(name, [(host, None, getattr(prints[host], name)) for host in hosts])
        for name in _OF_GPU:
            values = [
                (host, gpu.index, getattr(gpu, name))
                for host in hosts
                for gpu in _gpus(prints, host)
            ]
            yield from _odd(name, values)


def _gpus(prints: Mapping[str, Fingerprint], host: str) -> tuple[GpuPrint, ...]:
    return prints[host].gpus or ()


def _odd(name: str, values: Iterable[tuple[str, int | None, object]]) -> Iterator[Odd]:
    known = [one for one in values if one[2] is not None]
    counts = Counter(value for _, _, value in known).most_common()
    if len(counts) < 2:
        return
    usual, most = counts[0]
    tied = counts[1][1] == most
    for host, gpu, value in known:
        if value != usual or tied:
            others = [one for one, _, other in known if other != value and one != host]
            if others:
                other = usual if value != usual else counts[1][0]
                said = name.replace("_", " ")
                yield Odd(host, said, str(value), str(other), len(set(others)), gpu)


def paces(prints: Mapping[str, Fingerprint]) -> Iterator[Paced]:
    """Every measured replica beside its twins; the slowest first."""
    found: list[Paced] = []
    for hosts in _kinds(prints).values():
        speeds = [(host, one) for host in hosts for one in prints[host].speeds if one.quiet]
        for host, one in speeds:
            others = [
                other.tokens_per_second
                for at, other in speeds
                if at != host and (other.model, other.engine) == (one.model, one.engine)
            ]
            usual = median(others) if others else None
            share = one.tokens_per_second / usual if usual else None
            found.append(Paced(host, one, len(others), share))
    yield from sorted(found, key=lambda one: (one.share is None, one.share or 0.0, one.host))


def _kinds(prints: Mapping[str, Fingerprint]) -> Mapping[tuple[str, ...], Sequence[str]]:
    """Hosts by the names of their GPUs; those whose GPUs are not known are nobody's twins."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for host, one in prints.items():
        if one.gpus is not None:
            kind = tuple(sorted(gpu.name or "?" for gpu in one.gpus))
            kinds.setdefault(kind, []).append(host)
    return kinds
