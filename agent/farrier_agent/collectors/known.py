"""What is said of GPUs that were seen on this host once, and are not now. Pure.

NVML enumerates what answered when the driver was loaded: a GPU that was not there then does not
occur at all, and those that come after it get other indices.

A board that was exchanged is a GPU that is gone and another one that is new: the old one stays
until somebody says that it is meant (:meth:`.inventory.Inventory.forget`). Where the old one is at
its place again, the exchange was taken back, and the new one is forgotten: also what a driver only
called by another name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from farrier_agent.collectors.pci import normalised
from farrier_agent.gpus import Gpu, Gpus

__all__ = ["MAX_KNOWN", "Known", "merged"]

MAX_KNOWN = 128
"""GPUs that are remembered; a host has 16 at most."""
FRESH = 3600.0
"""Seconds after which it is noted again when a GPU was last seen."""

_replace = msgspec.structs.replace


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU that was seen on this host. ``index`` is that of the last complete enumeration.

    Where and when it was first seen is not known of those that were noted before that was.
    """

    uuid: str
    index: int
    pci_bus_id: str | None = None
    name: str | None = None
    serial: str | None = None
    first_seen_at: float | None = None
    first_pci_bus_id: str | None = None
    last_seen_at: float = 0.0


class Merged(NamedTuple):
    """What is known from now on, and what is said of the GPUs.

    ``forgotten`` are UUIDs that were known before: of exchanges that were taken back.
    """

    known: dict[str, Known]
    gpus: Gpus | None
    forgotten: tuple[str, ...] = ()


def merged(
    known: Mapping[str, Known],
    gpus: Gpus | None,
    functions: Collection[str] | None,
    *,
    wanted: Mapping[str, Sequence[int]],
    now: float,
) -> Merged:
    """*gpus* with those that are *known* and missing.

    *functions* are the addresses of NVIDIA's GPUs on the PCI bus. None, as for *gpus*, means that
    it could not be read. *wanted* are the indices that each replica was given. Without NVML nothing
    is said but what the bus alone says: which known GPUs have left it.
    """
    if gpus is None:
        return Merged(dict(known), _without_nvml(known, functions))
    here = {gpu.uuid for gpu in gpus.devices}
    absent = [one for one in known.values() if one.uuid not in here]
    seen = _indexed(known, gpus.devices, absent)
    holders = {gpu.pci_bus_id: gpu.uuid for gpu in seen if gpu.pci_bus_id}
    forgotten = tuple(
        one.uuid
        for one in absent
        if _taken_back(one, known.get(holders.get(one.pci_bus_id or "", "")))
    )
    absent = [one for one in absent if one.uuid not in forgotten]
    lost = [_lost(one, gpus, functions, holders.get(one.pci_bus_id or "")) for one in absent]
    devices = sorted([*seen, *lost], key=lambda gpu: gpu.index)
    problems = [
        *gpus.problems,
        *_strangers(gpus, set(functions or ()) - set(holders), known),
        *_not_there(wanted, devices, gpus.count),
    ]
    remembered = {one.uuid: one for one in absent}
    remembered |= {gpu.uuid: _remembered(gpu, known.get(gpu.uuid), now) for gpu in seen}
    return Merged(
        _bounded(remembered),
        _replace(gpus, devices=tuple(devices), problems=tuple(dict.fromkeys(problems))),
        forgotten,
    )


def _without_nvml(known: Mapping[str, Known], functions: Collection[str] | None) -> Gpus | None:
    if functions is None:
        return None
    gone = [
        _missing(one, "gone", "the PCI bus has it no longer, and NVML cannot be read")
        for one in sorted(known.values(), key=lambda one: one.index)
        if one.pci_bus_id and one.pci_bus_id not in functions
    ]
    return Gpus(count=None, devices=tuple(gone)) if gone else None


def _indexed(
    known: Mapping[str, Known], devices: Iterable[Gpu], absent: Collection[Known]
) -> list[Gpu]:
    """*devices* with indices as the replicas' configuration means them."""
    found = [_replace(gpu, pci_bus_id=_address(gpu.pci_bus_id)) for gpu in devices]
    if not absent:
        return found
    taken = {one.index for one in known.values()}
    result = []
    for gpu in found:
        if gpu.uuid in known:
            index = known[gpu.uuid].index
        else:
            index = gpu.index if gpu.index not in taken else max(taken) + 1
            taken.add(index)
        result.append(_replace(gpu, index=index))
    return result


def _taken_back(gone: Known, holder: Known | None) -> bool:
    """*holder*, which has the place of *gone*, had it from the first, before *gone* came."""
    if holder is None or holder.first_seen_at is None or gone.first_seen_at is None:
        return False
    return holder.first_pci_bus_id == gone.pci_bus_id and holder.first_seen_at < gone.first_seen_at


def _address(text: str | None) -> str | None:
    return text and (normalised(text) or text)


def _lost(one: Known, gpus: Gpus, functions: Collection[str] | None, holder: str | None) -> Gpu:
    if holder is not None:
        return _missing(
            one,
            "gone",
            f"another GPU, {holder}, is at its PCI address; if the board was exchanged, an"
            " acknowledgement (farrier-agent ack gpu-missing) makes this one forgotten",
        )
    nameless = (gpus.count or 0) - len(gpus.devices)
    nvml = f"NVML does not have it among {gpus.count}"
    if nameless > 0:
        nvml += f", of which {nameless} give no UUID"
    if functions is None or one.pci_bus_id is None:
        return _missing(one, "unseen", f"{nvml}; whether the PCI bus has it is not known")
    if one.pci_bus_id in functions:
        return _missing(one, "unseen", f"{nvml}; the PCI bus has it")
    return _missing(one, "gone", f"{nvml}; the PCI bus does not have it either")


def _missing(one: Known, problem: Literal["gone", "unseen"], detail: str) -> Gpu:
    return Gpu(
        uuid=one.uuid,
        index=one.index,
        up=False,
        problem=problem,
        problem_detail=detail,
        name=one.name,
        pci_bus_id=one.pci_bus_id,
        serial=one.serial,
    )


def _strangers(gpus: Gpus, others: Collection[str], known: Mapping[str, Known]) -> Iterator[str]:
    """GPUs that only the PCI bus has, and that nobody can name."""
    remembered = {one.pci_bus_id for one in known.values()}
    new = sorted(set(others) - remembered)
    if len(new) <= (gpus.count or 0) - len(gpus.devices):
        return  # NVML has them, and gives no UUID, which is a problem of its own
    for address in new:
        yield (
            f"the PCI bus has an NVIDIA GPU at {address} that NVML does not enumerate and that was"
            f" never seen in it; next: dmesg | grep -i nvrm; lspci -s {_short(address)}"
        )


def _short(address: str) -> str:
    """*address* as lspci takes it."""
    domain, _, rest = address.lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"


def _not_there(
    wanted: Mapping[str, Sequence[int]], devices: Iterable[Gpu], count: int | None
) -> Iterator[str]:
    """Replicas that were given GPUs which this host never had."""
    indices = {gpu.index for gpu in devices}
    for name, given in wanted.items():
        for index in given:
            if index not in indices and index >= (count or 0):
                yield (
                    f"replica {name} is given GPU {index}, and this host has none of that index:"
                    f" NVML enumerates {count}"
                )


def _remembered(gpu: Gpu, before: Known | None, now: float) -> Known:
    seen = before.last_seen_at if before else 0.0
    if gpu.up and not 0 <= now - seen < FRESH:
        seen = now
    return Known(
        uuid=gpu.uuid,
        index=gpu.index,
        # a lost GPU may not tell everything about itself any more
        pci_bus_id=gpu.pci_bus_id or (before.pci_bus_id if before else None),
        name=gpu.name or (before.name if before else None),
        serial=gpu.serial or (before.serial if before else None),
        first_seen_at=before.first_seen_at if before else now,
        first_pci_bus_id=before.first_pci_bus_id if before else gpu.pci_bus_id,
        last_seen_at=seen,
    )


def _bounded(known: dict[str, Known]) -> dict[str, Known]:
    if len(known) <= MAX_KNOWN:
        return known
    newest = sorted(known.values(), key=lambda one: one.last_seen_at, reverse=True)
    return {one.uuid: one for one in newest[:MAX_KNOWN]}
