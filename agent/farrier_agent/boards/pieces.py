"""The pieces of what goes with a board: what each is, and what gathers it."""

from __future__ import annotations

import asyncio
import gzip
import re
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from farrier_agent.boards.smi import UnsafeError, program
from farrier_agent.config import AgentConfig
from farrier_agent.evidence.bundle import Item
from farrier_agent.evidence.redaction import redact
from farrier_agent.evidence.running import Cut, RunError, run

__all__ = ["BUG_REPORT", "PIECE", "Piece", "bug_report", "machine", "pieces"]

BUG_REPORT = "nvidia-bug-report.log.gz"
PIECE = 4 * 1024 * 1024
"""Bytes of one piece."""
SECONDS = 30.0
"""Seconds of one program: nvidia-smi takes some where a GPU hangs."""
UNPACKED = 96 * 1024 * 1024
"""Bytes of NVIDIA's report, unpacked, that are kept."""

_KERNEL = "nvrm|nvidia|nvlink|nvswitch|sxid|aer:|pcieport"
_PACKAGE = re.compile(
    rb"nvidia|cuda|libnv|nvlsm|^\S+ +(?:dkms|datacenter-gpu|linux-(?:image|headers)|xserver)"
)
_DMI = ("sys_vendor", "product_name", "product_serial", "board_name", "board_serial")
_FIRMWARE = ("bios_vendor", "bios_version", "bios_date")
_LINK = (
    *("vendor", "device", "subsystem_vendor", "subsystem_device", "class", "revision"),
    *("current_link_speed", "current_link_width", "max_link_speed", "max_link_width"),
    *("aer_dev_correctable", "aer_dev_nonfatal", "aer_dev_fatal", "numa_node", "power_state"),
)

Collected = tuple[bytes, str | None]


@dataclass(frozen=True)
class Piece:
    """One file of a bundle: its name, ``what`` it is, and what gathers it."""

    name: str
    what: str
    collect: Callable[[], Awaitable[Collected]]

    @property
    def item(self) -> Item:
        """As it is gathered."""
        return Item(self.name, self.collect)


def pieces(config: AgentConfig, gpu: str | None, sys: Path) -> Iterator[Piece]:
    """Those of the GPU with the UUID *gpu*, of every one without; *sys* is sysfs."""
    one = ("-i", gpu) if gpu else ()

    def told(name: str, what: str, *command: str, cut: Cut = "head") -> Piece:
        return Piece(name, what, partial(_program, command, cut))

    yield told("nvidia-smi.txt", "all that NVML says", "nvidia-smi", "-q", *one)
    yield told("nvlink.txt", "states of NVLinks", "nvidia-smi", "nvlink", "--status", *one)
    yield told("topology.txt", "what is connected how", "nvidia-smi", "topo", "-m")
    yield told("lspci.txt", "NVIDIA's PCI functions", "lspci", "-vvv", "-nn", "-d", "10de:")
    yield Piece("pci.txt", "links and errors on the PCI bus, from sysfs", partial(_pci, sys))
    yield Piece("dmesg.txt", "what the kernel said of GPUs in this boot", _dmesg)
    yield Piece("kernel-journal.txt", "the same in every boot that is kept", _kernel_journal)
    journal = ("journalctl", "--no-pager", "--quiet", "--output=short-iso-precise")
    for unit, lines in (("nvidia-fabricmanager", "1000"), ("nvidia-persistenced", "200")):
        command = (*journal, f"--unit={unit}", f"--lines={lines}")
        yield told(f"{unit}.txt", f"the journal of {unit}", *command, cut="tail")
    command = (*journal, "--unit=farrier-agent", "--lines=2000")
    yield told("agent-journal.txt", "the agent's journal", *command, cut="tail")
    yield Piece("packages.txt", "packages of driver, CUDA and kernels", _packages)
    yield told("dkms.txt", "kernel modules that are built here", "dkms", "status")
    proc = Path(config.proc_root)
    yield Piece("driver.txt", "the loaded driver and its settings", partial(_driver, proc))
    yield Piece("machine.txt", "the server, its firmware and its kernel", partial(_machine, sys))
    state = Path(config.state_dir)
    for name, what in (
        ("xids.json", "XIDs that were counted, and the last ones"),
        ("health.json", "faults that the agent holds against GPUs, and since when"),
        ("gpus.json", "GPUs that the agent knows"),
    ):
        yield Piece(f"agent-{name}", what, partial(_file, state / name))


def bug_report(seconds: float, secrets: Callable[[], Awaitable[Collection[bytes]]]) -> Piece:
    """NVIDIA's own report, which may take *seconds*; *secrets* are taken out of it."""
    what = "NVIDIA's own report (nvidia-bug-report.sh)"
    return Piece(BUG_REPORT, what, partial(_bug_report, seconds, secrets))


def machine(sys: Path) -> str:
    """What the machine in *sys* says that it is, in one line; "" where it says nothing."""
    said = {name: _line(sys / "class/dmi/id" / name) for name in _DMI}
    name = " ".join(filter(None, (said["sys_vendor"], said["product_name"])))
    serial = said["product_serial"]
    return f"{name}, serial {serial}" if name and serial else name


async def _program(command: Sequence[str], cut: Cut) -> Collected:
    try:
        words = (program(command[0]), *command[1:])
    except UnsafeError as error:
        raise RunError(str(error)) from error
    return await run(words, deadline=SECONDS, limit=PIECE, cut=cut)


async def _dmesg() -> Collected:
    said, amiss = await _program(("dmesg", "--time-format=iso"), "tail")
    wanted = re.compile(_KERNEL.encode(), re.IGNORECASE)
    return b"".join(x for x in said.splitlines(keepends=True) if wanted.search(x)), amiss


async def _kernel_journal() -> Collected:
    command = ("journalctl", "--no-pager", "--quiet", "--output=short-iso-precise")
    more = ("_TRANSPORT=kernel", f"--grep={_KERNEL}", "--lines=20000")
    said, amiss = await _program((*command, *more), "tail")
    if amiss == "exit status 1" and not said.strip():
        return b"", None  # what it ends with where no line is one
    return said, amiss


async def _packages() -> Collected:
    form = "${db:Status-Abbrev} ${Package} ${Version} ${Architecture}\n"
    said, amiss = await _program(("dpkg-query", "-W", "-f", form), "head")
    lines = (one for one in said.splitlines(keepends=True) if _PACKAGE.search(one))
    return b"".join(lines), amiss


async def _file(path: Path) -> Collected:
    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(PIECE)

    try:
        return await asyncio.to_thread(read), None
    except OSError as error:
        return b"", f"{path}: {error.strerror}"


async def _driver(proc: Path) -> Collected:
    root = proc / "driver/nvidia"
    files = [root / "version", root / "params", *sorted(root.glob("gpus/*/information"))]
    found = await asyncio.to_thread(_texts, files)
    return (found, None) if found else (b"", f"{root}: no driver is loaded")


async def _machine(sys: Path) -> Collected:
    dmi = [sys / "class/dmi/id" / name for name in (*_DMI, *_FIRMWARE)]
    files = [*dmi, Path("/proc/version"), Path("/proc/cmdline"), Path("/etc/os-release")]
    found = await asyncio.to_thread(_texts, files)
    return found, None if any(
        one.exists() for one in dmi
    ) else "the machine does not say what it is"


async def _pci(sys: Path) -> Collected:
    def look() -> bytes:
        functions = sorted((sys / "bus/pci/devices").glob("*"))
        ours = [one for one in functions if _line(one / "vendor") == "0x10de"]
        return _texts([one / name for one in ours for name in _LINK])

    found = await asyncio.to_thread(look)
    return (found, None) if found else (b"", "no function of NVIDIA's is on the PCI bus")


def _texts(files: Sequence[Path]) -> bytes:
    """Those of *files* that can be read, each behind its name."""
    found = []
    for path in files:
        try:
            with path.open("rb") as file:
                text = file.read(65536)
        except OSError:
            continue
        found.append(b"== " + str(path).encode() + b"\n" + text.rstrip(b"\n") + b"\n")
    return b"".join(found)


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


async def _bug_report(
    seconds: float, secrets: Callable[[], Awaitable[Collection[bytes]]]
) -> Collected:
    try:
        script = program("nvidia-bug-report.sh")
    except UnsafeError as error:
        raise RunError(f"{error}: it comes with the driver's nvidia-utils") from error
    with tempfile.TemporaryDirectory(prefix="farrier-bug-report-") as where:
        path = Path(where) / "nvidia-bug-report.log"
        command = (script, "--output-file", str(path))
        said, amiss = await run(command, deadline=seconds, limit=65536)
        known = await secrets()
        data = await asyncio.to_thread(_cleaned, path, known)
    if not data and amiss is None:
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        amiss = f"it wrote no report: {' '.join(last)}"
    return data, amiss


def _cleaned(path: Path, secrets: Collection[bytes]) -> bytes:
    """The report at *path*, or what there is of it, packed, without *secrets*."""
    packed = path.with_name(path.name + ".gz")
    try:
        with gzip.open(packed) if packed.exists() else path.open("rb") as file:
            text = file.read(UNPACKED)
    except (OSError, EOFError, zlib.error):
        return b""
    return gzip.compress(redact(text, secrets), compresslevel=6) if text else b""
