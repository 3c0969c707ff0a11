"""Engines that are Python programs: their settings, their environment, how it comes to a host.

The role of such an engine says what is its own: the version, the locks, which wheels are not on
PyPI, which Debian packages it takes besides. The rest is the same for all of them. Nothing is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from farrier.converge.caches import forget_caches
from farrier.converge.environments import Environment, environment
from farrier.converge.packages import packages
from farrier.converge.paths import Directory, tree
from farrier.defaults import Default
from farrier.wheelhouse import Sources, with_lock

__all__ = ["TORCH_CPU", "Wheels", "torch_cpu", "wheel_settings"]

TORCH_CPU = ("torch_cpu_index", ("torch",))
"""What is elsewhere for an engine that has a lock for CPUs: see :func:`torch_cpu`."""


@dataclass(frozen=True)
class Wheels:
    """One such engine.

    *thing* is its role and its directory under /opt/farrier, *locks* the directory with the role's
    locks (``cuda-cp312.txt``), *needs_mb* the free space in /opt that filling it takes, by
    accelerator. *source* is a project of ours that is installed on top. *elsewhere* maps a setting
    (without the role's name) that has an index to the packages that come from there; torch does
    only where the lock has a build of it that PyPI has not (``2.13.0+cpu``).
    """

    thing: str
    locks: Path
    needs_mb: Mapping[str, int]
    source: Path | None = None
    elsewhere: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def environment(
        self, accelerator: str, settings: Mapping[str, Any], *, also: Path | None = None
    ) -> Environment:
        """Its environment for hosts with this *accelerator*; without locks where it has none.

        *also* is a further lock, for all Pythons: its packages come on top of the others.
        """
        own = settings[f"{self.thing}_locks"]
        directory = Path(own).expanduser() if own else self.locks
        locks = tuple(
            (f"3.{path.stem.partition('cp3')[2]}", with_lock(path, also) if also else path)
            for path in sorted(directory.glob(f"{accelerator}-cp3*.txt"))
        )
        return Environment(
            thing=self.thing,
            release=settings[f"{self.thing}_version"],
            locks=locks,
            needs_mb=self.needs_mb.get(accelerator, 0),
            sources=Sources(
                settings[f"{self.thing}_index_url"],
                tuple(settings[f"{self.thing}_find_links"]),
                tuple(
                    (package, settings[f"{self.thing}_{index}"])
                    for index, of in self.elsewhere
                    for package in of
                    if package != "torch" or any(_own_torch(path) for _, path in locks)
                ),
            ),
            source=self.source,
        )

    def bring(
        self, accelerator: str, settings: Mapping[str, Any], *, also: Path | None = None
    ) -> None:
        """Operations that install it; running engines keep the version they run."""
        names = [
            *settings[f"{self.thing}_packages"],
            *settings.get(f"{self.thing}_{accelerator}_packages", ()),
        ]
        wanted = self.environment(accelerator, settings, also=also)
        packages(name="Packages", names=names)
        tree(Directory(f"/opt/farrier/{self.thing}"), name="Directory")
        environment(wanted, name="Environment")
        forget_caches(wanted.version, name="Caches of versions that are gone")


@cache
def _own_torch(lock: Path) -> bool:
    return re.search(r"^torch==\S+\+", lock.read_text(encoding="utf-8"), re.MULTILINE) is not None


def wheel_settings(
    thing: str,
    version: str,
    *,
    of: str = "",
    further: Sequence[Default] = (),
    cuda: Sequence[str] = (),
    cuda_why: str = "",
    cpu: Sequence[str] | None = None,
    cpu_why: str = "",
) -> tuple[Default, ...]:
    """The settings that the role *thing* shares with its like, and *further* ones of its own.

    *of* goes behind the words "The version". *cuda* and *cpu* are Debian packages on such hosts,
    *cuda_why* and *cpu_why* are what they are for; no *cpu*: it has no build for one.
    """
    return (
        Default(
            f"{thing}_version",
            version,
            f"The version{of}; a lock for it has to be in the role, or in `{thing}_locks`.",
        ),
        Default(
            f"{thing}_locks",
            "",
            "A directory on your machine with locks of your own, for another version than the"
            " role's (`cuda-cp312.txt`: requirements with hashes for Python 3.12); empty: the"
            " role's.",
        ),
        Default(
            f"{thing}_index_url",
            None,
            "Package index to ask instead of the one that pip is configured with.",
        ),
        Default(
            f"{thing}_find_links",
            [],
            "Directories or pages with wheels, searched as well; pip's configured ones always are.",
        ),
        *further,
        Default(
            f"{thing}_packages",
            ["python3-minimal"],
            "Debian packages on every host that serves with it.",
        ),
        Default(
            f"{thing}_cuda_packages",
            list(cuda),
            f"Debian packages on CUDA hosts besides: {cuda_why}.",
        ),
        *(
            [
                Default(
                    f"{thing}_cpu_packages",
                    list(cpu),
                    f"Debian packages on CPU hosts besides{cpu_why and ': '}{cpu_why}.",
                )
            ]
            if cpu is not None
            else []
        ),
    )


def torch_cpu(thing: str) -> Default:
    """The setting of the role *thing* that :data:`TORCH_CPU` names."""
    return Default(
        f"{thing}_{TORCH_CPU[0]}",
        "https://download.pytorch.org/whl/cpu",
        "Where torch's CPU build comes from when find-links do not have it.",
    )
