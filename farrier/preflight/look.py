"""One command that asks a host everything that a preflight judges.

Each fact keeps its own script and its own parser. Here they stand one after the other in one shell,
each in a subshell of its own, with a mark behind each: one round trip, one sudo.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyinfra.api import FactBase

from farrier.facts.apt import Apt, Sources
from farrier.facts.containers import Containers
from farrier.facts.driver import Driver
from farrier.facts.fabric import Fabric
from farrier.facts.kernel import Kernels
from farrier.facts.machine import Machine
from farrier.facts.pci import Pci
from farrier.facts.roots import Roots
from farrier.facts.updates import Updates
from farrier.facts.weights import Weights
from farrier.preflight.basics import BasicFacts
from farrier.preflight.found import Found
from farrier.preflight.rules.models import adapter_paths, gguf_path, model_paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farrier.preflight.wanted import Wanted

__all__ = ["Look", "Questions", "questions"]

_BEGIN = "farrier: a look at the host"
_MARK = "farrier: part"

_NVIDIA: Mapping[str, type[FactBase[Any]]] = {
    "pci": Pci,
    "driver": Driver,
    "kernel": Kernels,
    "fabric": Fabric,
    "containers": Containers,
    "updates": Updates,
    "machine": Machine,
}
"""Cheap enough for every converge of a host with GPUs."""

_EVERYWHERE: Mapping[str, type[FactBase[Any]]] = {
    "kernel": Kernels,
    "updates": Updates,
    "machine": Machine,
    "apt": Apt,
    "sources": Sources,
}
"""What a look without a deploy asks of every host; it waits for apt's sources."""

_FACTS: Mapping[str, type[FactBase[Any]]] = {
    **_NVIDIA,
    **_EVERYWHERE,
    "weights": Weights,
    "basics": BasicFacts,
}


@dataclass(frozen=True, slots=True)
class Questions:
    """What to ask: the names of facts, and what they are asked about."""

    facts: tuple[str, ...]
    roots: Roots
    models: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    ggufs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ", ".join(self.facts)

    def command(self, name: str) -> str:
        """The script of one of the facts."""
        fact = _FACTS[name]()
        if isinstance(fact, BasicFacts):
            return fact.command(self.models, self.programs)
        if isinstance(fact, Weights):
            return fact.command(self.roots, self.models, self.adapters, self.ggufs)
        return str(fact.command(self.roots))


def questions(wanted: Wanted, *, all_of_them: bool = False) -> Questions:
    """What has to be known of the host that *wanted* describes.

    A converge asks hosts without a GPU the basics only; *all_of_them* is for a look without one.
    """
    models = wanted.spec.carried
    paths = {path for model in models for path in model_paths(model)}
    adapters = {path for model in models for path in adapter_paths(model)}
    files = {path for model in models if (path := gguf_path(model))}
    names = (
        *(_NVIDIA if wanted.cuda else ()),
        *(_EVERYWHERE if all_of_them else ()),
        *(("weights",) if paths or files or adapters else ()),
        "basics",  # last: it tells the time, which is compared with the operator's
    )
    return Questions(
        tuple(dict.fromkeys(names)),
        wanted.spec.roots,
        tuple(sorted(paths)),
        tuple(program.path for program in wanted.programs),
        tuple(sorted(adapters)),
        tuple(sorted(files)),
    )


class Look(FactBase[Found | None]):
    """:class:`Found`; None when the host would not answer (sudo refused, no shell)."""

    def command(self, questions: Questions) -> str:
        """One script, in which each fact has a shell of its own."""
        parts = (
            f"(\n{questions.command(name)}\n)\nprintf '\\n{_MARK} {name} %s\\n' $?"
            for name in questions.facts
        )
        return "\n".join([f"echo '{_BEGIN}'", *parts])

    @staticmethod
    def default() -> Found | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> Found | None:
        """Cut at the marks, and let each fact parse its own lines."""
        values = {name: _FACTS[name]().process(lines) for name, lines in _cut(output)}
        if "basics" not in values:
            return None
        sources = values.pop("sources", None)
        if sources and "apt" in values:
            values["apt"] = replace(values["apt"], sources=sources)
        return Found(**values, looked_at=time.time())


def _cut(output: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The lines of every part whose script ended well; one that did not is not known."""
    parts: list[tuple[str, list[str]]] = []
    lines: list[str] = []
    start = output.index(_BEGIN) + 1 if _BEGIN in output else 0
    for line in output[start:]:
        if line.startswith(_MARK):
            name, status = line.removeprefix(_MARK).split()
            if lines[-1:] == [""]:
                lines.pop()
            if status == "0":
                parts.append((name, lines))
            lines = []
        else:
            lines.append(line)
    return parts
