"""``farrier-agent ack``: what a person says is dealt with no longer counts. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from farrier_agent.health.memory import Known, Memory, answer_key
from farrier_agent.health.rules import BY_NAME, RULES

__all__ = ["Acknowledged", "acknowledge", "forgotten"]

_FORGETS = "gpu-missing"
_MEANT = "nvlink-down"
_replace = msgspec.structs.replace


class Acknowledged(NamedTuple):
    """One fault that was acknowledged. ``forget``: the inventory has to forget this GPU as well,
    before the next judgement."""

    rule: str
    gpu: str | None
    number: int | None = None
    forget: bool = False

    def __str__(self) -> str:
        whose = "" if self.gpu is None else f" of {self.gpu}"
        if self.gpu is not None and self.number is not None:
            whose = f" of GPU {self.number} ({self.gpu})"
        return f"{self.rule}{whose}" + (": forgotten" if self.forget else "")


def acknowledge(
    memory: Memory, name: str | None, gpu: str | None, at: float
) -> tuple[Memory, list[Acknowledged]]:
    """*memory* after somebody acknowledged, at *at*, what rule *name* holds against *gpu*.

    None stands for all of them; but a missing GPU is forgotten only where ``gpu-missing`` is named.
    *gpu* is a uuid, or an index. What a rule sees at every look cannot be talked away and is not
    acknowledged. Raises ValueError for a rule that is none, or a GPU that is not known.
    """
    if name is not None and name not in BY_NAME:
        raise ValueError(f"no rule is named {name} (known: {', '.join(BY_NAME)})")
    if gpu is not None:
        gpu = _uuid(memory.known, gpu, {mark.gpu for mark in memory.marks.values()})
    done: list[Acknowledged] = []
    marks, answered, links = dict(memory.marks), dict(memory.answered), dict(memory.links)
    for key, mark in memory.marks.items():
        said = BY_NAME.get(mark.rule)
        if said is None or not mark.holds or not (said.latched or said.ack):
            continue
        if name not in {None, mark.rule} or gpu not in {None, mark.gpu}:
            continue
        if mark.rule == _FORGETS and (name is None or mark.gpu is None):
            continue
        known = memory.known.get(mark.gpu) if mark.gpu else None
        forget = mark.rule == _FORGETS
        done.append(Acknowledged(mark.rule, mark.gpu, known.index if known else None, forget))
        del marks[key]
        answered[answer_key(mark.rule, mark.gpu)] = at
        if mark.rule == _MEANT and mark.gpu is not None:
            links.pop(mark.gpu, None)
    if name == _FORGETS and gpu is not None and not done and ("data-stale", gpu, None) in marks:
        # its inventory lost it, this memory did not
        done.append(Acknowledged(name, gpu, memory.known[gpu].index, forget=True))
    memory = _replace(memory, marks=marks, answered=answered, links=links)
    for one in done:
        if one.forget and one.gpu is not None:
            memory = forgotten(memory, one.gpu, at)
    return memory, done


def forgotten(memory: Memory, gpu: str, at: float) -> Memory:
    """*memory* without GPU *gpu* (a uuid), from *at* on: it is not a part of this host."""
    memory = _without(memory, gpu)
    # its XIDs are still in the log of this boot, and nobody's from now on
    nobodys = {answer_key(rule.name, None): at for rule in RULES if rule.known is not None}
    return _replace(memory, answered={**memory.answered, **nobodys})


def _uuid(known: dict[str, Known], gpu: str, marked: set[str | None]) -> str:
    if gpu in known or gpu in marked:
        return gpu
    named = [uuid for uuid, one in known.items() if str(one.index) == gpu]
    if len(named) == 1:
        return named[0]
    have = ", ".join(f"{one.index} ({uuid})" for uuid, one in known.items()) or "none"
    raise ValueError(f"no GPU is named {gpu} (known: {have})")


def _without(memory: Memory, gpu: str) -> Memory:
    """*memory* without anything about *gpu*."""
    return _replace(
        memory,
        marks={key: mark for key, mark in memory.marks.items() if mark.gpu != gpu},
        known={uuid: one for uuid, one in memory.known.items() if uuid != gpu},
        answered={k: at for k, at in memory.answered.items() if k.partition(" ")[2] != gpu},
        renewed={uuid: at for uuid, at in memory.renewed.items() if uuid != gpu},
        incidents={uuid: one for uuid, one in memory.incidents.items() if uuid != gpu},
        crashes={uuid: one for uuid, one in memory.crashes.items() if uuid != gpu},
        links={uuid: one for uuid, one in memory.links.items() if uuid != gpu},
        trails={uuid: one for uuid, one in memory.trails.items() if uuid != gpu},
    )
