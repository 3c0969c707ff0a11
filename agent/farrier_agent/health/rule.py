"""What a rule is: data, and the functions that look at a GPU, a replica or the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from farrier_agent.gpus import Gpu
    from farrier_agent.health.view import View
    from farrier_agent.status import Replica

__all__ = ["FINE", "UNSEEN", "Found", "Look", "Rule", "Sight", "Step"]


class Step(NamedTuple):
    """The one thing to do: ``next`` in words, ``command`` what to type on the host, as root.

    A command is a template: ``{gpu}`` is the uuid, ``{replica}`` and ``{replicas}`` those
    concerned, ``{stop}`` and ``{start}`` what has to let go of the GPU, and is started again. One
    that names replicas is left out where there are none.
    """

    next: str
    command: str | None = None


class Sight(Enum):
    """What a look can be, other than a fault: all is well, or it could not be seen."""

    FINE = "fine"
    UNSEEN = "unseen"


FINE = Sight.FINE
UNSEEN = Sight.UNSEEN


class Found(NamedTuple):
    """A fault, in words. ``step``: instead of the rule's. ``at``: when it happened, where told.

    ``by`` says what told of it, for rules with more than one source. ``now``: it counts at once,
    however many looks its rule wants.
    """

    text: str
    step: Step | None = None
    at: float | None = None
    by: str = ""
    now: bool = False


Look = Found | Sight


@dataclass(frozen=True)
class Rule:
    """One rule. ``when`` says, for people, what it finds; the looks say so to the program.

    ``gpu`` looks at a GPU of a fresh reading; ``known`` at one that is known, fresh reading or not,
    by its uuid (None: what cannot be told to be of one GPU); ``replica`` and ``host`` at those.

    A fault counts after ``looks`` in a row that found it, over at least ``seconds``. It is over
    after ``clear_looks`` in a row that found all well, over at least ``clear_seconds``. *Unseen*
    is neither. A ``latched`` one ends by ``farrier-agent ack``, and by what ``confirmed_by`` says:
    ``reset``: after a reset or a reboot was seen, and all is well then; ``ack``: by nothing else.
    ``ack``: one that is not latched can be acknowledged too. ``acts``: while it holds, replicas
    that use the GPU are drained. ``anywhere``: on hosts without GPUs too.
    """

    name: str
    state: Literal["degraded", "unhealthy", "unknown"]
    when: str
    step: Step
    gpu: Callable[[Gpu, View], Look] | None = None
    known: Callable[[str | None, View], Look] | None = None
    replica: Callable[[Replica, View], Look] | None = None
    host: Callable[[View], Look] | None = None
    acts: bool = False
    looks: int = 1
    seconds: float = 0.0
    clear_looks: int = 2
    clear_seconds: float = 0.0
    latched: bool = False
    ack: bool = False
    confirmed_by: Literal["reset", "ack"] = "reset"
    anywhere: bool = False

    @property
    def clears(self) -> str:
        """What ends a fault of this rule, for people."""
        one = self.clear_looks == 1
        good = "1 good look" if one else f"{self.clear_looks} good looks in a row"
        if self.clear_seconds:
            good += f" over {self.clear_seconds:.0f} s"
        if not self.latched:
            return good
        if self.confirmed_by == "ack":
            return "farrier-agent ack"
        return f"a reset or reboot, then {good}; or farrier-agent ack"
