"""What may be taken away again: the packages that Farrier's transactions brought, and no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

from roles.nvidia_driver.look import STATE
from roles.nvidia_driver.names import is_driver_package
from roles.nvidia_driver.simulation import Simulation, parse_simulation

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RemovalFact", "RemovalPlan", "choose"]


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """*packages* are purged. *left*: there is something of the role's to remove at all."""

    packages: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    left: bool = False


_SCRIPT = rf"""
STATE={STATE}
export LC_ALL=C; echo asked
[ ! -e $STATE/lock ] || flock -s $STATE/lock true
systemctl list-units --plain --no-legend --state=active,activating,reloading,deactivating \
    'engine-*.service' 2>/dev/null | sed 's/ .*//; s/^/engine /'
[ -d $STATE ] || [ -e /etc/apt/preferences.d/farrier-nvidia ] || exit 0
echo left
mine=$(sort -u $STATE/installed 2>/dev/null | while read -r name; do
    case $name in linux-image-*)
        # What boots the host stays, whoever brought it; a container boots nothing.
        systemd-detect-virt -q --container || continue;;
    esac
    state=$(dpkg-query -W -f '${{db:Status-Status}}' "$name" 2>/dev/null)
    case ${{state:-not-installed}} in not-installed) ;; *) echo "$name";; esac
done)
[ -n "$mine" ] || exit 0
echo "$mine" | sed 's/^/mine /'
apt-mark showmanual 2>/dev/null | sed 's/^/manual /'
echo simulation
apt-get -s -q -y --fix-broken -o APT::Install-Recommends=false --allow-change-held-packages \
    purge $mine 2>&1
true
"""


class RemovalFact(FactBase[RemovalPlan | None]):
    """:class:`RemovalPlan`; None when the host did not answer."""

    def command(self) -> str:
        """One shell, with a simulation where there is something to remove."""
        return _SCRIPT.strip()

    @staticmethod
    def default() -> RemovalPlan | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> RemovalPlan:
        """Parse what the script printed, and choose."""
        border = output.index("simulation") if "simulation" in output else len(output)
        said = [line.partition(" ") for line in output[:border]]

        def all_of(kind: str) -> list[str]:
            return [rest for word, _, rest in said if word == kind]

        return RemovalPlan(
            choose(all_of("mine"), all_of("manual"), parse_simulation(output[border + 1 :])),
            tuple(all_of("engine")),
            "left" in output[:border],
        )


def choose(mine: Sequence[str], manual: Sequence[str], simulation: Simulation) -> tuple[str, ...]:
    """Which of *mine* go, where *simulation* is what apt would do to purge them all.

    Where that would take or bring anything else, somebody has come to need what Farrier brought
    (a compiler, say): then only the driver itself and the headers go. The same holds for a package
    that was since asked for by name.
    """
    strict = bool(simulation.reason or simulation.installs or set(simulation.removes) - set(mine))
    return tuple(name for name in mine if _drivers_own(name) or (not strict and name not in manual))


def _drivers_own(name: str) -> bool:
    return is_driver_package(name.partition(":")[0]) or name.startswith("linux-headers-")
