"""What the agent has systemd do: restart an engine, and run root's evidence program."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from farrier_agent.config import AgentConfig
from farrier_agent.serving.worker import Worker
from farrier_agent.units.state import UnitsError, UnitState
from farrier_agent.units.watch import WAITING, Units

__all__ = ["ActError", "Actor", "Bundle", "evidence_unit"]

JOB_SECONDS = 1800.0
"""Seconds that a restart of an engine's unit may take: its stop, which may drain, and its start."""
EVIDENCE_SECONDS = 90.0
_MAX_REASON = 400


class ActError(RuntimeError):
    """systemd did not do it; the message says what and why, ``next`` is a command to type."""

    def __init__(self, text: str, next: str) -> None:  # noqa: A002 - as it is spoken
        super().__init__(f"{text}; next: {next}")
        self.text = text
        self.next = next


@dataclass(frozen=True)
class Bundle:
    """A bundle of evidence on this host."""

    path: Path
    size: int

    def __str__(self) -> str:
        return f"{self.path} ({self.size / 1024:.0f} KiB)"


def evidence_unit(replica: str) -> str:
    """The unit that keeps evidence about *replica*."""
    return f"farrier-evidence@{replica}.service"


class Actor:
    """Asks *units* to act on the replicas of *config*."""

    def __init__(self, config: AgentConfig, units: Units) -> None:
        self._units = units
        self._unit = {replica.name: replica.unit for replica in config.replicas}
        self._run_dir = Path(config.run_dir)
        self._evidence_dir = Path(config.evidence_dir)
        self._worker = Worker("evidence")

    def can_ask(self, replica: str) -> bool:
        """systemd is there, and the unit of *replica* is known."""
        return self._units.state(self._unit[replica]) is not None

    async def restart(self, replica: str) -> UnitState:
        """Stop, which drains, and start the unit of *replica*. Raises ActError."""
        unit = self._unit[replica]
        try:
            outcome = await self._units.restart(unit, within=JOB_SECONDS)
        except UnitsError as error:
            raise ActError(
                f"{unit} was not restarted: {error}", f"systemctl restart {unit}"
            ) from error
        now = outcome.unit
        if outcome.job == WAITING:
            raise ActError(
                f"{unit} has not restarted within {JOB_SECONDS:.0f} s ({_state(now)})",
                f"systemctl status {unit}",
            )
        # the unit is the truth: of a job that systemd replaced or lost its end says nothing
        if now.active_state not in {"active", "activating"}:
            raise ActError(
                f"{unit} does not run after its restart ({_state(now)})", f"journalctl -u {unit} -e"
            )
        return now

    async def evidence(self, replica: str, why: str) -> Bundle:
        """Have evidence about *replica* kept, because of *why*. Raises ActError."""
        unit = evidence_unit(replica)
        log = f"journalctl -u {unit} -e"
        newest = partial(self._newest, replica)
        before = await self._worker.do(newest)
        line = " ".join(why.split())[:_MAX_REASON]
        with suppress(OSError):  # evidence without its reason is evidence
            path = self._run_dir / f"evidence-{replica}"
            await self._worker.do(lambda: path.write_text(line + "\n", encoding="utf-8"))
        try:
            outcome = await self._units.start(unit, within=EVIDENCE_SECONDS)
        except UnitsError as error:
            raise ActError(f"{unit} did not run: {error}", log) from error
        kept = await self._worker.do(newest)
        if kept is None or kept == before:
            raise ActError(f"{unit} kept nothing ({_state(outcome.unit)})", log)
        return kept

    def _newest(self, replica: str) -> Bundle | None:
        """The newest bundle about *replica*; its directory may be listed, the bundle not read."""
        try:
            paths = sorted(self._evidence_dir.glob(f"{replica}-????????T??????.*.tar.gz"))
            return Bundle(paths[-1], paths[-1].stat().st_size) if paths else None
        except OSError:
            return None


def _state(unit: UnitState) -> str:
    result = f", {unit.result}" if unit.result not in {None, "success"} else ""
    return f"it is {unit.active_state} ({unit.sub_state}{result})"
