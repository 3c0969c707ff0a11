"""Everything that the role has to know of a host, asked with one command.

The facts of ``farrier/facts`` and what only this role leaves on a host: its journal of an open
transaction, and its record of the last completed one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

from farrier.facts.driver import Driver, DriverFacts
from farrier.facts.fabric import Fabric, FabricFacts
from farrier.facts.kernel import KernelFacts, Kernels
from farrier.facts.packages import ORIGINS
from farrier.facts.pci import NvidiaPci, Pci

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farrier.facts.roots import Roots

__all__ = ["STATE", "Look", "LookFact", "Own", "parse_own"]

STATE = "/var/lib/farrier/nvidia"
"""Where the role keeps its program, its journal (``open/``) and its record (``current/``)."""

_MARK = "farrier nvidia_driver:"

# A transaction that is under way is waited for: what is looked at afterwards is its outcome. The
# lock is its own, held for as long as the unit runs.
_SCRIPT = rf"""
STATE={STATE}
[ ! -e $STATE/lock ] || flock -s $STATE/lock true
. /etc/os-release; echo "system $ID${{VERSION_ID:-}}"
echo "architecture $(dpkg --print-architecture)"
dpkg-query -W -f '${{db:Status-Abbrev}}image ${{Package}}\n' 'linux-image-*' 2>/dev/null |
    sed -n 's/^ii *//p'
systemctl list-units --plain --no-legend --state=active,activating,reloading,deactivating \
    'engine-*.service' 2>/dev/null | sed 's/ .*//; s/^/engine /'
if [ -d $STATE/open ]; then
    echo "open $(cat $STATE/open/phase 2>/dev/null || echo start)"
    sed 's/^/target /' $STATE/open/set
fi
if [ -d $STATE/current ]; then
    echo recorded
    sed 's/^/set /' $STATE/current/set
    for f in preferences blacklist; do
        case $f in preferences) t=/etc/apt/preferences.d/farrier-nvidia;;
            *) t=/etc/apt/apt.conf.d/60farrier-nvidia;; esac
        cmp -s $STATE/current/$f $t || echo "unguarded $t"
    done
fi
[ -d $STATE ] && echo left
if command -v update-initramfs >/dev/null && ls /boot/initrd.img-* >/dev/null 2>&1; then
    sum=$(cat /etc/modprobe.d/farrier-nouveau.conf 2>/dev/null | sha256sum)
    [ "$sum" = "$(cat $STATE/initramfs 2>/dev/null)" ] || echo stale-initramfs
fi
ls /dev/nvidia[0-9]* >/dev/null 2>&1 && echo device
true
"""


@dataclass(frozen=True, slots=True)
class Own:
    """What only this role asks.

    *system* is ``debian12``; *images* are installed packages; *engines* units that serve, or are
    about to. *phase* is how far an interrupted transaction came, None if there is none, and
    *target* what it was to bring. *recorded* is the driver that Farrier installed last (name to
    version), None if it never did. *unguarded* are files of ours that are not as recorded. *left*:
    there is anything of the role's at all. *stale_initramfs*: there are images, from before nouveau
    was forbidden. *device*: a device node of a GPU exists.
    """

    system: str = ""
    architecture: str = ""
    images: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    phase: str | None = None
    target: Mapping[str, str] = field(default_factory=dict)
    recorded: Mapping[str, str] | None = None
    unguarded: tuple[str, ...] = ()
    left: bool = False
    stale_initramfs: bool = False
    device: bool = False


def parse_own(lines: Sequence[str]) -> Own:
    """Parse the script's lines; each begins with the word for what it tells."""
    said: dict[str, list[str]] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        said.setdefault(word, []).append(rest.strip())
    first = {word: values[0] for word, values in said.items()}
    return Own(
        first.get("system", ""),
        first.get("architecture", ""),
        tuple(said.get("image", ())),
        tuple(said.get("engine", ())),
        first.get("open"),
        _pairs(said.get("target", ())),
        _pairs(said.get("set", ())) if "recorded" in said else None,
        tuple(said.get("unguarded", ())),
        "left" in said,
        "stale-initramfs" in said,
        "device" in said,
    )


def _pairs(lines: Sequence[str]) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in lines if " " in line)


@dataclass(frozen=True, slots=True)
class Look:
    """A host as it was found."""

    driver: DriverFacts = field(default_factory=DriverFacts)
    kernel: KernelFacts = field(default_factory=KernelFacts)
    fabric: FabricFacts = field(default_factory=FabricFacts)
    pci: NvidiaPci = field(default_factory=NvidiaPci)
    own: Own = field(default_factory=Own)

    @property
    def installed(self) -> dict[str, str]:
        """The driver's packages that are there in any state but ``config-files``."""
        return {
            one.name: one.version for one in self.driver.packages if one.state != "config-files"
        }


class LookFact(FactBase[Look | None]):
    """:class:`Look`; None when the host did not answer."""

    def command(self, roots: Roots) -> str:
        """One shell for all, in which each of them has a shell of its own."""
        facts = (Driver(), Kernels(), Fabric(), Pci())
        # Where each package comes from is not asked here, and apt takes seconds to tell.
        scripts = [_SCRIPT, *(fact.command(roots).replace(ORIGINS, "") for fact in facts)]
        return "\n".join(f"(\n{script}\n)\nprintf '\\n{_MARK} %s\\n' $?" for script in scripts)

    @staticmethod
    def default() -> Look | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> Look:
        """Cut at the marks and let each fact parse its part."""
        parts: list[list[str]] = [[]]
        for line in output:
            if line.startswith(_MARK):
                parts.append([])
            else:
                parts[-1].append(line)
        own, driver, kernel, fabric, pci = parts[:5]
        return Look(
            Driver().process(driver),
            Kernels().process(kernel),
            Fabric().process(fabric),
            Pci().process(pci),
            parse_own(own),
        )
