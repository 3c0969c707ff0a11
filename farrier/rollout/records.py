"""What a ledger keeps of one host, its replicas, its steps and its gates. Pure.

Times are seconds since the epoch where a name ends in ``_at``, else seconds. ``None``: not known.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from farrier_agent.boards.told import Tested
from farrier_agent.fingerprint.made import Fingerprint

from farrier.nvidia.planned import DriverPlan
from farrier.rollout.comparing import Comparison
from farrier.rollout.counts import Counts
from farrier.rollout.plan import Kind

__all__ = ["GateRecord", "HostRecord", "HostState", "ReplicaRecord", "StepRecord"]

HostState = Literal["waiting", "running", "done", "put back", "failed", "taken back"]


class ReplicaRecord(msgspec.Struct, kw_only=True):
    """One replica. ``invocation_before`` is the run of its unit that is to end.

    ``goes_back`` says what it has otherwise when it is put back.
    ``failing``: it does not come up, so whatever run it is in is the one to end, until it is warm.
    ``heard`` is how many requests were in flight when it was last heard of, while it drains.
    """

    name: str
    model: str
    served: bool = True
    pending: bool | None = None
    failing: bool = False
    goes_back: str | None = None
    invocation_before: str | None = None
    invocation_after: str | None = None
    configuration_before: str | None = None
    configuration_after: str | None = None
    verdict_before: str | None = None
    verdict_after: str | None = None
    in_flight: int | None = None
    heard: int | None = None
    drain_seconds: float | None = None
    cut: int = 0
    stop_seconds: float | None = None
    start_seconds: float | None = None
    warm_seconds: float | None = None


class StepRecord(msgspec.Struct, kw_only=True):
    """A step that began; ``outcome`` is None while it runs, or when its end is not known."""

    step: str
    began_at: float
    ended_at: float | None = None
    outcome: Literal["done", "failed"] | None = None
    note: str = ""


class GateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A gate that a host has to pass before it serves again: what was ``expected`` and ``seen``.

    ``ok`` is None where that could not be judged, which is never counted as passed.
    """

    name: str
    expected: str
    seen: str
    ok: bool | None
    note: str = ""


class HostRecord(msgspec.Struct, kw_only=True):
    """One host. ``failure`` says why it stopped, ``next`` what to type about it.

    ``back``: it is being put back to what it ran before, as every host of a rollback; ``turned``
    says why where that was decided in the middle, and then the steps before ``turned_after`` were
    of the way there. ``cut_before`` are the requests that were cut before its replicas began anew.

    ``counts_before`` is what it counted of its requests before it was touched. ``output`` is the
    end of what a command or a converge wrote, ``evidence`` where the host keeps what explains a
    failure, ``soak`` what the soak showed. ``canary``: it is compared with the rest before others
    are changed, ``compared`` is how it fared, and ``shared`` are the replicas (``HOST:REPLICA``)
    that may have a share of their own on gateways until that is known to be ended.

    Of a driver: ``driver_before`` and ``driver_wanted`` are upstream versions, ``driver`` what the
    role plans, ``driver_loaded`` the version that NVML last told. ``let_go`` are the units that
    were stopped for it, ``unloaded`` whether its modules could be, and ``reboots_for`` why the host
    has to reboot (None: it need not). ``fingerprint_before`` is how it was before it was touched
    (kept until it is over), ``gates`` how it compares with that, and ``gates_back`` how it did when
    it was put back. ``settled`` says why nothing is to be done here, where that was found out late.

    ``tests`` are those of the last diagnosis by DCGM, ``diagnosed`` how many have told theirs.
    """

    host: str
    batch: int
    replicas: list[ReplicaRecord] = []
    state: HostState = "waiting"
    steps: list[StepRecord] = []
    back: bool = False
    turned: str | None = None
    turned_after: int = 0
    cut_before: int = 0
    boot_before: str | None = None
    boot_after: str | None = None
    agent_before: str | None = None
    agent_after: str | None = None
    verdict_before: str | None = None
    gpus_before: tuple[str, ...] | None = None
    counts_before: Counts | None = None
    output: str = ""
    evidence: list[str] = []
    soak: str = ""
    canary: bool = False
    shared: list[str] = []
    compared: list[Comparison] = []
    failure: str | None = None
    next: str | None = None
    code: int = 0
    driver: DriverPlan | None = None
    driver_before: str | None = None
    driver_wanted: str | None = None
    driver_loaded: str | None = None
    let_go: list[str] = []
    unloaded: bool = False
    reboots_for: str | None = None
    fingerprint_before: Fingerprint | None = None
    gates: list[GateRecord] = []
    tests: list[Tested] = []
    diagnosed: int = 0
    gates_back: list[GateRecord] = []
    settled: str = ""

    @property
    def present(self) -> list[StepRecord]:
        """The steps of the sequence that it is in: those since it turned back, if it did."""
        return self.steps[self.turned_after :]

    @property
    def over(self) -> bool:
        """Nothing is left to be done here."""
        return self.state in {"done", "put back"}

    def doing(self, kind: Kind) -> Kind:
        """The sequence of steps that it follows in a rollout of *kind*."""
        if not self.back:
            return kind
        return "driver-back" if kind == "driver" else "rollback"

    def turn_back(self, why: str) -> None:
        """From here on it is put back, because of *why*; steps that were done do not count then.

        A host that turned already goes on with that.
        """
        if self.back:
            return
        self.back, self.turned, self.turned_after = True, why, len(self.steps)
        self.reboots_for = None
        self.cut_before = self.cut
        for one in self.replicas:
            one.cut = 0  # it is counted, and a second drain counts anew

    def grow_small(self) -> None:
        """It is over: what only its steps needed goes, for ledgers of many hosts stay small."""
        self.fingerprint_before = None
        if self.driver is not None:
            self.driver = msgspec.structs.replace(self.driver, steps=(), offers=())
            self.output = self.output if self.turned else ""

    def renew(self, replicas: list[ReplicaRecord]) -> None:
        """Have *replicas*, which begin anew; what was cut stays counted."""
        self.cut_before, self.replicas = self.cut, replicas

    def last(self, step: str) -> StepRecord | None:
        """The newest record of *step*, in the present sequence."""
        return next((one for one in reversed(self.present) if one.step == step), None)

    def did(self, step: str) -> bool:
        """*step* is known to be done, in its newest attempt."""
        record = self.last(step)
        return record is not None and record.outcome == "done"

    @property
    def cut(self) -> int:
        """Requests that were cut."""
        return self.cut_before + sum(one.cut for one in self.replicas)
