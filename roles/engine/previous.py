"""Keeps the unit that a replica was warm with, before a converge writes another one.

``farrier rollout rollback`` goes back to it. What never became warm is not kept, so that it does
not take the place of what was.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from farrier_agent.rollout.previous import DIRECTORY, MARK, UNITS
from pyinfra import host

from farrier.converge.commands import Refuse, Script, in_words
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation
from roles.engine.state import ReplicaStates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farrier.converge.commands import Commands
    from roles.engine.state import ReplicaState

__all__ = ["keep_previous", "keeping"]


@operation(
    asks=lambda hashes: Question(ReplicaStates, {"replicas": list(hashes)}, several="replicas")
)
def keep_previous(hashes: Mapping[str, str]) -> Commands:
    """Keep the units of replicas whose configuration is about to be another one.

    + hashes: replica to the hash of its configuration as it should be
    """
    states: dict[str, ReplicaState] = answer()
    changed = {name: states.get(name) for name in hashes}
    if any(now is None for now in changed.values()):
        yield Refuse("the host could not be asked for its replicas; see the line above")
        return
    due = [
        keeping(name, proven=now.proven)
        for name, now in changed.items()
        if now is not None and now.unit not in {"-", hashes[name]}
    ]
    if not due:
        host.noop("no replica's configuration is about to change")
    for script in due:
        yield Script(script, explain=in_words("the unit from before was not kept"))


def keeping(replica: str, *, proven: bool) -> str:
    """The shell script that keeps the unit of *replica* if it is *proven*.

    Either way it is no more the one that was put back.
    """
    name = f"engine-{replica}"
    unit, kept = f"{UNITS}/{name}.service", f"{DIRECTORY}/{name}.service"
    mark = shlex.quote(f"{DIRECTORY}/{name}{MARK}")
    if not proven:
        return f"rm -f {mark}"
    new = shlex.quote(f"{kept}.farrier-new")
    return (
        f"umask 022\nmkdir -p -- {DIRECTORY}\n"
        # the name is fixed: what an interrupted run left is overwritten
        f"rm -f -- {new} {mark}\ncp -- {shlex.quote(unit)} {new}\nsync -- {new}\n"
        f"chmod 644 -- {new}\nmv -fT -- {new} {shlex.quote(kept)}"
    )
