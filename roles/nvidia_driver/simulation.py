"""What ``apt-get -s`` says it would do: parsed, and judged before anything is done."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from farrier.nvidia.versions import DriverVersion
from roles.nvidia_driver.names import is_driver_package

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from roles.nvidia_driver.names import PackageSet

__all__ = ["Change", "Simulation", "judge", "parse_simulation", "told_steps"]


@dataclass(frozen=True, slots=True)
class Change:
    """A package that would be installed in *version*, over the version *old* if that is not None.

    *origin* is apt's word for where it comes from (``Debian-Security:12/oldstable-security``).
    """

    name: str
    version: str
    old: str | None = None
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Simulation:
    """The transaction as apt would do it, or apt's *reason* why it cannot.

    *removes* maps a package's name to the version that would go. *steps* are apt's own lines, by
    which the transaction is compared with its plan again right before it.
    """

    installs: tuple[Change, ...] = ()
    removes: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    steps: tuple[str, ...] = ()

    def after(self, installed: Mapping[str, str]) -> dict[str, str]:
        """The driver's packages and versions afterwards, where *installed* are there now."""
        changed = {one.name: one.version for one in self.installs}
        left = {name: version for name, version in installed.items() if name not in self.removes}
        return {
            name: version
            for name, version in sorted({**left, **changed}.items())
            if is_driver_package(name.partition(":")[0])
        }

    @property
    def new(self) -> tuple[str, ...]:
        """What would be installed and is not there in any version."""
        return tuple(one.name for one in self.installs if one.old is None)


_INST = re.compile(r"Inst (?P<name>\S+) (?:\[(?P<old>[^]]+)\] )?\((?P<new>\S+) ?(?P<origin>[^)[]*)")
_REMV = re.compile(r"(?:Remv|Purg) (?P<name>\S+)(?: \[(?P<old>[^]]+)\])?")
_UNMET = "The following packages have unmet dependencies:"


def parse_simulation(lines: Iterable[str]) -> Simulation:
    """Parse what ``LC_ALL=C apt-get -s install …`` printed on both outputs."""
    installs, removes, steps, reasons = [], {}, [], []
    unmet = False
    for line in lines:
        if found := _INST.match(line):
            installs.append(
                Change(found["name"], found["new"], found["old"], found["origin"].strip(" ,"))
            )
            steps.append(line)
        elif found := _REMV.match(line):
            removes[found["name"]] = found["old"] or ""
            steps.append(line)
        elif line.startswith(_UNMET):
            unmet = True
        elif line.startswith("E: "):
            unmet = False
            reasons.append(line[3:])
        elif unmet and line.startswith(" "):
            reasons.append(line.rstrip())
    reason = "\n".join(reasons)
    return Simulation(tuple(installs), removes, reason, tuple(steps))


def told_steps(simulation: Simulation) -> tuple[str, ...]:
    """What it would do, for people: the driver's own packages, and what is upgraded or removed."""
    lines = [
        f"{one.name} {f'{one.old} -> ' if one.old else ''}{one.version}"
        for one in simulation.installs
        if one.name in simulation.after({}) or one.old
    ]
    lines += [f"{name} {version} is removed" for name, version in simulation.removes.items()]
    others = len(simulation.installs) + len(simulation.removes) - len(lines)
    lines += [f"and {others} packages that these need"] if others else []
    return tuple(lines)


def judge(
    simulation: Simulation, wanted: PackageSet, installed: Mapping[str, str]
) -> Iterator[str]:
    """Every reason why the transaction must not be done. *installed*: the driver's packages now."""
    if simulation.reason:
        yield f"apt cannot do it:\n{simulation.reason}"
        return
    foreign = [name for name in simulation.removes if not _may_go(name)]
    if foreign:
        yield (
            f"apt would remove {', '.join(sorted(foreign))}, which is not the driver's:"
            " look at the transaction by hand (apt-get -s install "
            f"{' '.join(wanted.names)}), and remove what may go yourself"
        )
    after = simulation.after(installed)
    module = DriverVersion.parse(after.get(wanted.module, ""))
    if module is None:
        yield (
            f"{wanted.module} would not be there afterwards; apt would install"
            f" {', '.join(one.name for one in simulation.installs) or 'nothing'}"
        )
        return
    yield from _other_versions(wanted.fabric, after, module)


def _may_go(name: str) -> bool:
    plain = name.partition(":")[0]
    # Debian's and NVIDIA's ways to divert libGL replace one another with the driver.
    diverts = plain.startswith(("nvidia-", "libnvidia-", "glx-", "libgl"))
    return is_driver_package(plain) or (diverts and "container" not in plain)


def _other_versions(
    names: Sequence[str], after: Mapping[str, str], module: DriverVersion
) -> Iterator[str]:
    for name in names:
        version = DriverVersion.parse(after.get(name, ""))
        if version != module:
            yield (
                f"{name} would be {version or 'absent'} beside driver {module}, and refuses to work"
                " with any other version than its own: name a nvidia_driver_version that the"
                " source has both of"
            )
