"""The machine itself: memory, IOMMU, clock, firewall and disks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pyinfra.api import FactBase

from farrier.facts.firewall import FIREWALL, Firewall, parse_firewall

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from farrier.facts.roots import Roots

__all__ = ["DISKS", "Firewall", "Machine", "MachineFacts", "parse"]

DISKS = ("/", "/var", "/opt")
"""Directories whose file systems are filled: packages, logs and caches, environments."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """A host's machine.

    *iommu* is ``off`` (no groups), ``passthrough`` (identity mappings) or ``translated``, as the
    GPUs are mapped (all devices where there is no GPU), None if unknown. *acs* are the PCI bridges
    above GPUs that redirect peer-to-peer traffic to the root complex. *hugepages* are those
    reserved of the default size *hugepage_kb* (KiB), *memory_mb* is the total in MiB,
    *transparent_hugepages* is ``always``, ``madvise``, ``never`` or "". *host_time* is in seconds
    since 1970. *disks* maps each path that was asked about to the free MiB of its file system,
    *inodes* to its free inodes (absent on file systems without a fixed number of them).
    """

    iommu: Literal["off", "passthrough", "translated"] | None = None
    acs: tuple[str, ...] = ()
    hugepages: int | None = None
    hugepage_kb: int | None = None
    memory_mb: int | None = None
    transparent_hugepages: str = ""
    host_time: float | None = None
    clock_synchronized: bool | None = None
    firewall: Firewall = field(default_factory=Firewall)
    disks: Mapping[str, int] = field(default_factory=dict)
    inodes: Mapping[str, int] = field(default_factory=dict)


# The bridges above a GPU are the directories above its own in sysfs. Their Access Control Services
# are extended capability 13, found by walking the list that begins at byte 256 of the configuration
# space: 16 bits id, 4 bits version, 12 bits offset of the next; control is at offset 6.
_SCRIPT = r"""
gpus=
for d in "$SYS"/bus/pci/devices/*; do
    read -r vendor 2>/dev/null < "$d/vendor" && [ "$vendor" = 0x10de ] || continue
    read -r class 2>/dev/null < "$d/class"
    case $class in 0x0300*|0x0302*) ;; *) continue;; esac
    gpus=yes
    read -r type 2>/dev/null < "$d/iommu_group/type" && echo "gpu-group $type"
    path=$(cd -P "$d" && cd .. && pwd -P)
    while [ -e "$path/class" ]; do
        bridges="$bridges
$path"
        path=${path%/*}
    done
done
if [ -d "$SYS/kernel/iommu_groups" ]; then
    for d in "$SYS"/kernel/iommu_groups/*/; do
        [ -d "$d" ] || { echo no-groups; break; }
        [ -n "$gpus" ] && break
        read -r type 2>/dev/null < "$d/type" && echo "group $type"
    done
fi
echo "$bridges" | sort -u | while read -r path; do
    read -r class 2>/dev/null < "$path/class" || continue
    case $class in 0x0604*) ;; *) continue;; esac
    control=$(od -An -v -tu4 -w4 -j256 -N3840 "$path/config" 2>/dev/null | awk '
        {word[NR - 1] = $1}
        END {
            at = 256
            for (steps = 0; steps < 64 && at >= 256 && at < 4096; steps++) {
                head = word[(at - 256) / 4]
                if (head % 65536 == 13) {print int(word[(at - 252) / 4] / 65536); exit}
                at = int(head / 1048576)
            }
        }')
    [ -n "$control" ] && echo "acs $control ${path##*/}"
done
grep -sE '^(MemTotal|HugePages_Total|Hugepagesize):' "$PROC/meminfo"
read -r line 2>/dev/null < "$SYS/kernel/mm/transparent_hugepage/enabled" && echo "thp $line"
echo "time $(date +%s.%N)"
has timedatectl && clock=$(timeout -k 2 10 timedatectl show -p NTPSynchronized --value 2>/dev/null)
echo "clock $clock"
for wanted in __DISKS__; do
    d=$wanted
    until [ -d "$d" ]; do d=${d%/*}; d=${d:-/}; done
    df -Pm "$d" 2>/dev/null | awk -v p="$wanted" 'NR == 2 {print "disk", $4, p}'
    df -Pi "$d" 2>/dev/null | awk -v p="$wanted" 'NR == 2 && $2 > 0 {print "inodes", $4, p}'
done; true
"""


class Machine(FactBase[MachineFacts | None]):
    """:class:`MachineFacts`; None when the host did not answer."""

    def command(self, roots: Roots, paths: Iterable[str] = DISKS) -> str:
        """One shell; two processes for each bridge above a GPU, and for each of *paths*."""
        quoted = " ".join(shlex.quote(path) for path in paths)
        return roots.shell() + FIREWALL + _SCRIPT.replace("__DISKS__", quoted)

    @staticmethod
    def default() -> MachineFacts | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> MachineFacts:
        """Parse what the script printed."""
        return parse(output)


REDIRECTS = 0x04 | 0x08
"""Bits of the ACS control register: P2P request redirect, P2P completion redirect."""

_IOMMU: dict[str, Literal["passthrough", "translated"]] = {
    "identity": "passthrough",
    "DMA": "translated",
    "DMA-FQ": "translated",
}
"""Kernel's types of an IOMMU group's domain (Documentation/ABI, sysfs-kernel-iommu_groups)."""


def parse(output: Sequence[str]) -> MachineFacts:
    """Parse the script's lines; each begins with the word for what it tells."""
    groups, acs = set(), []
    meminfo: dict[str, int] = {}
    disks: dict[str, int] = {}
    inodes: dict[str, int] = {}
    huge, clock, now = "", "", None
    for line in output:
        kind, _, rest = line.partition(" ")
        number, _, path = rest.partition(" ")
        match kind:
            case "gpu-group" | "group":
                groups.add(_IOMMU.get(rest.strip()))
            case "acs" if number.isdecimal() and path and int(number) & REDIRECTS:
                acs.append(path)
            case "MemTotal:" | "HugePages_Total:" | "Hugepagesize:":
                if found := re.fullmatch(r"\s*([0-9]+)( kB)?", rest):
                    meminfo[kind] = int(found[1])
            case "thp" if found := re.search(r"\[(\w+)\]", rest):
                huge = found[1]
            case "time" if re.fullmatch(r"[0-9]+(\.[0-9]+)?", rest.strip()):
                now = float(rest)
            case "clock":
                clock = rest.strip()
            case "disk" if number.isdecimal() and path:
                disks[path] = int(number)
            case "inodes" if number.isdecimal() and path:
                inodes[path] = int(number)
    total = meminfo.get("MemTotal:")
    return MachineFacts(
        _iommu(groups, output),
        tuple(sorted(acs)),
        meminfo.get("HugePages_Total:"),
        meminfo.get("Hugepagesize:"),
        total // 1024 if total is not None else None,
        huge,
        now,
        {"yes": True, "no": False}.get(clock),
        parse_firewall(output),
        disks,
        inodes,
    )


def _iommu(
    groups: set[Literal["passthrough", "translated"] | None], output: Sequence[str]
) -> Literal["off", "passthrough", "translated"] | None:
    if "translated" in groups:
        return "translated"
    if "passthrough" in groups:
        return "passthrough"
    return "off" if "no-groups" in output else None
