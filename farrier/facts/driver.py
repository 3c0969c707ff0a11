"""NVIDIA's driver: loaded, built, and installed by whom."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

from farrier.facts.packages import LISTING, ORIGINS, Package, parse_packages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.facts.roots import Roots

__all__ = ["Driver", "DriverFacts", "GpuSeen", "Module", "Package", "parse"]

SMI_TIMEOUT = 30
"""Seconds for nvidia-smi, which hangs on a GPU that fell off the bus."""


@dataclass(frozen=True, slots=True)
class Module:
    """The driver's kernel module on the disk, for one kernel.

    *flavour* is ``open`` or ``proprietary``; both are "" where modinfo is absent or fails.
    """

    version: str = ""
    flavour: str = ""


@dataclass(frozen=True, slots=True)
class GpuSeen:
    """A GPU that the loaded driver serves, as nvidia-smi lists it.

    *memory_mb* is the total in MiB, None where the driver names none (memory shared with the CPU).
    *pci* is the function's address in the kernel's form (``0000:1b:00.0``).
    """

    index: int
    uuid: str
    name: str
    memory_mb: int | None
    pci: str


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """The driver of this host.

    *loaded* is the version of the module in the kernel, None if there is none, and
    *loaded_flavour* ``open``, ``proprietary`` or None. *library* is the version of the libcuda
    (else NVML) that programs would load. *modules* maps a kernel's release to the module on the
    disk for it. *runfile* says that NVIDIA's own installer put files here. *gpus* and *smi_error*
    are nvidia-smi's, which is asked only while a driver is loaded (it would load one): *smi_error*
    is "" then, or where all is well.
    """

    loaded: str | None = None
    loaded_flavour: str | None = None
    library: str | None = None
    packages: tuple[Package, ...] = ()
    modules: Mapping[str, Module] = field(default_factory=dict)
    runfile: bool = False
    gpus: tuple[GpuSeen, ...] = ()
    smi_error: str = ""


# The library's name carries its version: libcuda.so.1 links to libcuda.so.580.95.05, on Debian by
# way of the alternatives.
_SCRIPT = r"""
read -r line 2>/dev/null < "$PROC/driver/nvidia/version" && echo "nvrm $line"
read -r line 2>/dev/null < "$SYS/module/nvidia/version" && echo "sysfs $line"
for f in "$USR"/lib/x86_64-linux-gnu/libcuda.so.1 "$USR"/lib/aarch64-linux-gnu/libcuda.so.1 \
    "$USR"/lib64/libcuda.so.1 "$USR"/lib/libcuda.so.1 \
    "$USR"/lib/x86_64-linux-gnu/libnvidia-ml.so.1 "$USR"/lib/aarch64-linux-gnu/libnvidia-ml.so.1
do
    [ -e "$f" ] && { echo "library $(readlink -f "$f")"; break; }
done
[ -x "$USR/bin/nvidia-uninstall" ] && echo runfile
find "$MODULES" \( -name 'nvidia.ko*' -o -name 'nvidia-current.ko*' \
    -o -name 'nvidia-current-open.ko*' -o -name 'nvidia-tesla.ko*' \
    -o -name 'nvidia-tesla-[0-9][0-9][0-9].ko*' \) 2>/dev/null | while read -r f; do
    release=${f#"$MODULES"/}
    # Once and not by field: a compressed module takes a second to unpack.
    said=$(has modinfo && modinfo "$f" | grep -E '^(version|license):' | tr -s ' \n' ' ')
    echo "module ${release%%/*}|$said|$f"
done 2>/dev/null
if [ -e "$PROC/driver/nvidia/version" ] && has nvidia-smi; then
    said=$(timeout -k 2 __TIMEOUT__ nvidia-smi --format=csv,noheader,nounits \
        --query-gpu=index,uuid,name,memory.total,pci.bus_id 2>&1)
    echo "smi $?"
    echo "$said" | sed 's/^/gpu /'
fi; true
"""


class Driver(FactBase[DriverFacts | None]):
    """:class:`DriverFacts`; None when the host did not answer."""

    def command(self, roots: Roots) -> str:
        """dpkg-query and find; apt-cache and modinfo only where there is something to ask about."""
        script = LISTING + ORIGINS + _SCRIPT.replace("__TIMEOUT__", str(SMI_TIMEOUT))
        return roots.shell() + script

    @staticmethod
    def default() -> DriverFacts | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> DriverFacts:
        """Parse what the script printed."""
        return parse(output)


_NUMBERS = re.compile(r"[0-9]{3,4}(?:\.[0-9]+){1,2}")
_TIMED_OUT = {124, 137}


def parse(output: Sequence[str]) -> DriverFacts:
    """Parse the script's lines; each begins with the word for what it tells."""
    loaded = loaded_flavour = library = None
    modules: dict[str, tuple[bool, Module]] = {}
    gpus: list[str] = []
    status = 0
    for line in output:
        kind, _, rest = line.partition(" ")
        match kind:
            case "nvrm" if found := _NUMBERS.search(rest.partition("Kernel Module")[2]):
                loaded = found[0]
                loaded_flavour = "open" if "Open Kernel Module" in rest else "proprietary"
            case "sysfs" if _NUMBERS.fullmatch(rest.strip()):
                loaded = loaded or rest.strip()
            case "library" if found := re.search(r"\.so\.([0-9]{3,4}(?:\.[0-9]+)+)$", rest):
                library = found[1]
            case "module" if rest.count("|") >= 2:
                release, said, path = rest.split("|", 2)
                # depmod's order: what was built here comes before what came with the kernel.
                ours = "/updates/" in path
                if release not in modules or (ours and not modules[release][0]):
                    modules[release] = ours, _module(said)
            case "smi" if rest.strip().isdigit():
                status = int(rest)
            case "gpu":
                gpus.append(rest)
    return DriverFacts(
        loaded,
        loaded_flavour,
        library,
        parse_packages(output),
        {release: module for release, (_, module) in modules.items()},
        any(line.strip() == "runfile" for line in output),
        parse_gpus(gpus) if status == 0 else (),
        _complaint(status, gpus),
    )


def parse_gpus(lines: Sequence[str]) -> tuple[GpuSeen, ...]:
    """Parse nvidia-smi's CSV of index, uuid, name, memory.total (MiB) and pci.bus_id."""
    gpus = []
    for line in lines:
        match [part.strip() for part in line.split(",")]:
            case [index, uuid, *name, memory, pci] if name and index.isdecimal():
                address = re.sub(r"^0000(?=[0-9a-f]{4}:)", "", pci.lower())
                total = int(memory) if memory.isdecimal() else None
                gpus.append(GpuSeen(int(index), uuid, ", ".join(name), total, address))
    return tuple(gpus)


def _module(said: str) -> Module:
    """``version: 580.95.05 license: Dual MIT/GPL`` is an open one, ``license: NVIDIA`` is not."""
    version = re.search(r"\bversion: (\S+)", said)
    license_ = re.search(r"\blicense: (.*?)(?: version:|$)", said)
    flavour = ""
    if license_:
        flavour = (
            "open" if "GPL" in license_[1] else "proprietary" if "NVIDIA" in license_[1] else ""
        )
    return Module(version[1] if version else "", flavour)


def _complaint(status: int, said: Sequence[str]) -> str:
    if status == 0:
        return ""
    if status in _TIMED_OUT:
        return f"nvidia-smi did not answer within {SMI_TIMEOUT} seconds"
    text = " ".join(line.strip() for line in said if line.strip())
    return text or f"nvidia-smi ended with status {status} and said nothing"
