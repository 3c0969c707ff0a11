"""What is written into the form with which a board is returned. Pure.

Times are UTC: the form is read elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from farrier_agent.gpus import Gpu, Xid
from farrier_agent.status import Status, Verdict
from farrier_agent.wording import counted, printable

__all__ = ["board_words"]

UNKNOWN = "not known"


def board_words(
    status: Status | None,
    smi: Mapping[str, Mapping[str, str]],
    wanted: Iterable[str] = (),
    *,
    server: str = "",
) -> tuple[str, ...]:
    """Lines about the GPUs *wanted* (all, without one) of the host that *status* is of.

    *smi* is what nvidia-smi says of each, by UUID, and *server* what the machine says of itself.
    What nobody says is ``not known``.
    """
    devices = status.gpus.devices if status and status.gpus else ()
    by_uuid = {one.uuid: one for one in devices}
    uuids = tuple(wanted) or tuple(dict.fromkeys((*by_uuid, *smi)))
    host = status.host if status else "this host"
    lines: list[str] = []
    for uuid in uuids:
        told = smi.get(uuid, {})
        lines += _board(host, uuid, by_uuid.get(uuid), told)
        if status is not None:
            verdict = status.health.gpus.get(uuid) if status.health else None
            lines += _since(verdict)
            lines += _xids(one for one in status.xids if one.uuid == uuid)
        if (gpu := by_uuid.get(uuid)) is not None:
            lines += _memory(gpu)
    if status is not None:
        strays = [one for one in status.xids if not one.uuid]
        if strays:
            lines.append("XIDs of no GPU that is known:")
            lines += _xids(strays)
        driver = status.gpus.driver_version if status.gpus else None
        lines.append(f"driver: {driver or UNKNOWN}")
    lines.append(f"server: {server or UNKNOWN}")
    return tuple(printable(line) for line in lines)


def _board(host: str, uuid: str, gpu: Gpu | None, told: Mapping[str, str]) -> Iterator[str]:
    def known(field: str, name: str) -> str:
        value = getattr(gpu, field) if gpu is not None else None
        return value or told.get(name) or UNKNOWN

    index = f"GPU {gpu.index}" if gpu is not None else "GPU"
    part = told.get("Board Part Number") or told.get("GPU Part Number") or UNKNOWN
    yield f"{index} of {host}: {known('name', 'Product Name')}"
    yield f"  serial: {known('serial', 'Serial Number')}"
    yield f"  part: {part}"
    yield f"  uuid: {uuid}"
    yield f"  vbios: {known('vbios_version', 'VBIOS Version')}"
    yield f"  PCI address: {known('pci_bus_id', 'Bus Id')}"
    if gpu is not None and not gpu.up:
        yield f"  it does not answer: {gpu.problem or UNKNOWN} {gpu.problem_detail or ''}".rstrip()


def _since(verdict: Verdict | None) -> Iterator[str]:
    if verdict is None:
        yield "  verdict: none"
        return
    yield f"  verdict: {verdict.state}"
    for reason in verdict.reasons:
        yield f"    since {_utc(reason.since_at)}: {reason.rule}: {reason.text}"


def _xids(xids: Iterable[Xid]) -> Iterator[str]:
    told = False
    for one in sorted(xids, key=lambda one: one.last_at):
        told = True
        line = f": {one.text[:160]}" if one.text else ""
        times = counted(one.count, "time")
        yield f"  XID {one.xid}: {times}, the last one {_utc(one.last_at)}{line}"
    if not told:
        yield "  XIDs: none"


def _memory(gpu: Gpu) -> Iterator[str]:
    rows = gpu.remapped_rows
    if rows is not None:
        failed = "; one could not be exchanged" if rows.failed else ""
        pending = "; more at the next reset" if rows.pending else ""
        yield (
            f"  rows of memory exchanged: {rows.corrected} after corrected errors,"
            f" {rows.uncorrected} after uncorrected ones{pending}{failed}"
        )
    ever = sum(
        one.count
        for one in gpu.ecc_errors
        if one.kind == "uncorrected" and one.scope == "aggregate" and one.memory != "all"
    )
    if gpu.ecc_errors:
        yield f"  uncorrected memory errors ever: {ever}"


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
