"""A replica as its host has it: its unit, its gate, and what the agent keeps of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from farrier_agent.draining.record import SCHEMA, Phase, Record
from farrier_agent.rollout.previous import UNITS, proven
from pyinfra.api import FactBase

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RECORDS", "ReplicaState", "ReplicaStates", "read_record"]

_record = msgspec.json.Decoder(Record)

RECORDS = "/var/lib/farrier/replicas"


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A replica's unit, the configuration hash that it was started with, its gate and its record.

    ``unit`` is the hash of the unit's file, ``-`` where there is none, as in ``started``. ``run``
    is the unit's invocation id, empty when it does not run.
    """

    active: str
    run: str
    started: str
    gate_open: bool
    record: Record | None = None
    unit: str = "-"

    @property
    def proven(self) -> bool:
        """It was started with what its unit's file says now, and was warm with that."""
        return proven(self.record, self.started, None if self.unit == "-" else self.unit)

    @property
    def serves(self) -> bool:
        """It runs and takes requests."""
        return self.active == "active" and self.gate_open

    def is_older(self, config_hash: str) -> bool:
        """Whether it runs, with another configuration than the one of *config_hash*."""
        return self.active == "active" and self.started not in {"-", config_hash}

    def kept_closed(self) -> str | None:
        """Why it takes no requests and will take none by itself, with what changes that.

        None when it serves, is on its way, or its unit does not run.
        """
        record = self.record
        if record is None or self.serves or self.active != "active":
            return None
        if not self.run or record.invocation_id != self.run or record.stopping:
            return None
        ready = f"sudo farrier-agent ready {record.replica}"
        if record.phase is Phase.READY and record.gate == "open":
            return f"is warm, but somebody closed its gate by hand. To open it: {ready}"
        if record.phase in {Phase.DRAINING, Phase.DRAINED} and record.drain:
            if record.rollouts:
                return _held_by_rollout(record)
            who = record.drain.askers[-1]
            look = "Look at: farrier-agent status. " if who.source == "verdict" else ""
            return (
                f"is {record.phase.value}: {who.reason} (asked by {who.by}). {look}To take it back:"
                f" {ready}"
            )
        return None


def _held_by_rollout(record: Record) -> str:
    """A rollout takes it back by itself: a person's ready meanwhile would be in its way."""
    askers = record.drain.askers if record.drain else ()
    who = next(one for one in reversed(askers) if one.source == "rollout")
    after = ""
    if record.others:
        other = record.others[-1]
        after = f". It stays drained after that: {other.reason} (asked by {other.by})"
    return (
        f"is {record.phase.value}: {who.reason} (asked by {who.by}). The rollout takes it back; if"
        f" nobody drives it any more: farrier rollout resume {who.rollout or 'ID'}{after}"
    )


class ReplicaStates(FactBase[dict[str, ReplicaState]]):
    """The state of each of *replicas*."""

    def command(self, replicas: Sequence[str]) -> str:
        """One ``systemctl show`` for all, what runs of them, and their records, a line each."""
        names = " ".join(map(shlex.quote, replicas))
        units = " ".join(shlex.quote(f"engine-{replica}.service") for replica in replicas)
        return (
            f"systemctl show -p Id,ActiveState,InvocationID -- {units}; echo ==\n"
            f"for r in {names}; do\n"
            "    started=-; gate=closed; unit=-\n"
            "    [ -e /run/farrier/started/$r ] && read -r started < /run/farrier/started/$r\n"
            "    [ -e /run/farrier/open/$r ] && gate=open\n"
            f"    [ ! -f {UNITS}/engine-$r.service ] || while read -r line; do\n"
            '        case "$line" in X-FarrierConfigHash=*) unit=${line#*=}; break;; esac\n'
            f"    done < {UNITS}/engine-$r.service\n"
            '    echo "$r $started $gate $unit"\n'
            "done\n"
            "echo ==\n"
            f"for r in {names}; do\n"
            f"    [ ! -f {RECORDS}/$r.json ] || {{ tr -d '\\n' < {RECORDS}/$r.json; echo; }}\n"
            "done; true"
        )

    @staticmethod
    def default() -> dict[str, ReplicaState]:
        """Nothing is known."""
        return {}

    def process(self, output: list[str]) -> dict[str, ReplicaState]:
        """Parse what :meth:`command` printed."""
        # each part ends with a newline; the last one is empty on a host without a record
        shown, replicas, records = "".join(f"{line}\n" for line in output).split("==\n", 2)
        units = {}
        for block in shown.split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if values:
                units[values["Id"]] = values
        kept = {one.replica: one for line in records.splitlines() if (one := read_record(line))}
        states = {}
        for line in replicas.splitlines():
            replica, started, gate, text = line.split()
            unit = units[f"engine-{replica}.service"]
            states[replica] = ReplicaState(
                unit["ActiveState"],
                unit["InvocationID"],
                started,
                gate == "open",
                kept.get(replica),
                text,
            )
        return states


def read_record(line: str) -> Record | None:
    """The record that *line* is as JSON; None for what this version does not understand."""
    try:
        record = _record.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if record.schema == SCHEMA else None
