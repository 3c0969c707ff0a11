"""The judge of a host: what it remembers outlives a restart of the agent, and a reboot.

Judging does no I/O. :meth:`Judge.save` does, for a thread of its own, when :attr:`Judge.unsaved`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from farrier_agent.durable import replace
from farrier_agent.health import deciding
from farrier_agent.health.acknowledging import Acknowledged, acknowledge, forgotten
from farrier_agent.health.deciding import Book, Drain, TakeBack
from farrier_agent.health.judging import judge
from farrier_agent.health.memory import Known, Mark, Memory, Trail
from farrier_agent.health.observed import Observed
from farrier_agent.health.rules import BY_NAME, observing
from farrier_agent.health.xids import Incident
from farrier_agent.status import Health, Replica

__all__ = ["SCHEMA", "Judge", "decoded", "encoded"]

SCHEMA = 1
"""Version of the file. Within one, fields are only added; of a newer one nothing is taken over."""
_MOST = 1 << 20
"""Bytes of a file that may be one of ours."""
_replace = msgspec.structs.replace


class _File(msgspec.Struct, frozen=True, kw_only=True):
    schema: int = SCHEMA
    boot_id: str = ""
    marks: tuple[Mark, ...] = ()
    known: dict[str, Known] = {}
    answered: dict[str, float] = {}
    renewed: dict[str, float] = {}
    incidents: dict[str, tuple[Incident, ...]] = {}
    crashes: dict[str, tuple[Incident, ...]] = {}
    links: dict[str, tuple[int, ...]] = {}
    energy: dict[str, float] = {}
    book: Book = Book()


class _Head(msgspec.Struct):
    schema: int


_head = msgspec.json.Decoder(_Head)
_file = msgspec.json.Decoder(_File)


def encoded(memory: Memory, book: Book) -> bytes:
    """What is kept of *memory* and *book*: faults that hold, without how near their end they are.

    Of the counters only the energy: enough to see a reset that happens while no agent runs.
    """
    return msgspec.json.encode(
        _File(
            boot_id=memory.boot_id,
            marks=_holding(memory),
            known=memory.known,
            answered=memory.answered,
            renewed=memory.renewed,
            incidents=memory.incidents,
            crashes=memory.crashes,
            links=memory.links,
            energy={
                uuid: trail.energy
                for uuid, trail in memory.trails.items()
                if trail.energy is not None
            },
            book=book,
        )
    )


def decoded(data: bytes) -> tuple[Memory, Book]:
    """What :func:`encoded` made of them. Raises ValueError, with what is wrong."""
    try:
        schema = _head.decode(data).schema
        if schema > SCHEMA:
            raise ValueError(f"schema {schema} is newer than this agent's ({SCHEMA})")
        file = _file.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    memory = Memory(
        boot_id=file.boot_id,
        # a rule that this version of the agent does not have cannot be judged any more
        marks={mark.key: mark for mark in file.marks if mark.rule in BY_NAME and mark.holds},
        known=file.known,
        answered=file.answered,
        renewed=file.renewed,
        incidents=file.incidents,
        crashes=file.crashes,
        links=file.links,
        # of no moment of this run: nothing is reckoned per second with it
        trails={uuid: Trail(float("inf"), energy) for uuid, energy in file.energy.items()},
    )
    return memory, file.book


def _holding(memory: Memory) -> tuple[Mark, ...]:
    return tuple(
        _replace(mark, streak=0, lasted=0.0, looked=0.0)
        for mark in memory.marks.values()
        if mark.holds
    )


class Judge:
    """Judges one host. *path* is the file of its memory, *observe_only* rules that drain nothing.

    ``problem`` says what is wrong with the file, None when nothing is. Raises ValueError for a name
    in *observe_only* that is no rule's. A file that cannot be read, or holds garbage, is begun
    anew: faults that can be seen are seen again, and what was latched from before is forgotten.
    """

    def __init__(self, path: Path, observe_only: Collection[str] = ()) -> None:
        self.problem: str | None = None
        self.book = Book()
        self._observing = observing(observe_only)
        self._path = path
        self._memory = Memory()
        self._saved: object = None
        self._read()

    def judge(self, observed: Observed) -> Health:
        """The verdicts of this moment."""
        health, self._memory = judge(observed, self._memory, observing=self._observing)
        return health

    def ack(self, rule: str | None, gpu: str | None, at: float) -> list[Acknowledged]:
        """Acknowledge, see :func:`.acknowledge`; the inventory forgets what says so before the
        next :meth:`judge`. Raises ValueError."""
        self._memory, done = acknowledge(self._memory, rule, gpu, at)
        return done

    def forget(self, gpu: str, at: float) -> None:
        """The inventory knows GPU *gpu* no longer."""
        self._memory = forgotten(self._memory, gpu, at)

    def decide(
        self, health: Health, replicas: Sequence[Replica], *, at: float, by: str
    ) -> tuple[Drain | TakeBack, ...]:
        """What to do about *replicas*, see :func:`.deciding.decide`."""
        intents, self.book = deciding.decide(health, replicas, self.book, at=at, by=by)
        return intents

    def begun(self, replica: str) -> None:
        """The drain of *replica* was begun."""
        self.book = deciding.begun(self.book, replica)

    def taken_back(self, replica: str, at: float) -> None:
        """*replica* was taken back."""
        self.book = deciding.taken_back(self.book, replica, at)

    def overruled(self, replica: str, health: Health) -> None:
        """A person made *replica* ready, whatever *health* has against it."""
        self.book = deciding.overruled(self.book, replica, health)

    @property
    def unsaved(self) -> bool:
        """There is something to remember that is not on the disk."""
        return self._durable() != self._saved

    def save(self) -> None:
        """Write what is remembered. Raises OSError; then it is still unsaved.

        May run in a thread beside :meth:`judge`: it writes one moment, whole.
        """
        memory, book = self._memory, self.book
        durable = self._durable(memory, book)
        replace(self._path, encoded(memory, book))
        self._saved = durable
        self.problem = None

    def _durable(self, memory: Memory | None = None, book: Book | None = None) -> object:
        memory = memory or self._memory
        return (
            *(memory.boot_id, _holding(memory), memory.known, memory.answered, memory.renewed),
            *(memory.incidents, memory.crashes, memory.links, self.book if book is None else book),
        )

    def _read(self) -> None:
        try:
            with self._path.open("rb") as file:
                data = file.read(_MOST + 1)
            if len(data) > _MOST:
                raise ValueError(f"is larger than {_MOST} bytes")
            self._memory, self.book = decoded(data)
            self._saved = self._durable()
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else error
            self.problem = f"{self._path}: {what}: what was latched before is forgotten"
