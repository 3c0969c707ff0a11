"""What a host says of itself at one moment, as far as a rollout decides by it. Pure.

``None`` means *not known* everywhere; what is not known never counts as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from farrier_agent.status import Replica, Status

from farrier.rollout.units_seen import UnitSeen

__all__ = ["OUR_REASON", "BoardSeen", "HostSeen", "ReplicaSeen", "seen"]

OUR_REASON = "rollout "
"""How the reason of a rollout's own drain begins; any other one is somebody else's."""
_OURS = (OUR_REASON, f"held by {OUR_REASON}")
"""Also as the agent says it of what it holds while a rollout acts."""
_JUDGED = ("farrier-agent (GPU health)", "farrier-agent (health)")
"""Who drains for a judgement of the agent's own; it takes that back by itself."""


@dataclass(frozen=True)
class BoardSeen:
    """One GPU: its UUID and index, whether it answers, and whether NVLinks tie it to others."""

    uuid: str
    index: int
    up: bool = True
    linked: bool = False


@dataclass(frozen=True)
class ReplicaSeen:
    """One replica. ``held_by``: who else than a rollout keeps it drained, and why.

    ``invocation`` names the run of its unit, ``restarts`` are systemd's own since somebody started
    it. ``configuration`` is the hash that the running engine was started with, ``unit`` that of the
    unit on the disk, ``previous`` that of the one before it, which was warm; ``put_back`` that of
    the unit that was put back last. ``waiting`` are the requests queued in its engine, ``gpus`` the
    indices of the GPUs that it uses.
    """

    name: str
    model: str
    phase: str | None = None
    gate_open: bool | None = None
    up: bool | None = None
    in_flight: int | None = None
    waiting: int | None = None
    pending: bool | None = None
    invocation: str | None = None
    restarts: int | None = None
    configuration: str | None = None
    unit: str | None = None
    previous: str | None = None
    put_back: str | None = None
    verdict: str | None = None
    reason: str | None = None
    drained_by_rollout: bool = False
    held_by: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()

    @property
    def held_by_people(self) -> tuple[str, ...]:
        """Those of ``held_by`` that are no judgement of the agent's own on its health."""
        return tuple(one for one in self.held_by if not one.startswith(_JUDGED))

    @property
    def serves(self) -> bool:
        """New requests may go there: what counts when others are to carry the load."""
        return (
            self.phase == "ready"
            and self.gate_open is True
            and self.up is True
            and self.verdict != "unhealthy"
        )

    @property
    def warm(self) -> bool:
        """Its engine has answered in this run, and was started with what its unit says."""
        return self.up is True and self.phase in {"drained", "ready"} and self.pending is not True

    @property
    def older(self) -> bool:
        """Its present run was begun with another configuration than its unit's on the disk.

        Unlike ``pending`` never a tick old: only what was read together is compared.
        """
        known = self.configuration is not None and self.unit is not None
        return known and self.configuration != self.unit

    @property
    def failing(self) -> bool:
        """It does not come up by itself: it failed, or systemd starts it over and over."""
        if self.phase in {"failed", "stopped"}:
            return True
        return self.phase in {"starting", "warming"} and bool(self.restarts)

    @property
    def back(self) -> str | None:
        """The configuration that it goes back to, None where there is nothing to go back to.

        Where its unit was put back, and was not started yet, that is the one to go on with:
        another step would be one forward again.
        """
        if self.unit is not None and self.put_back == self.unit and not self._runs_its_unit:
            return self.unit
        return self.previous if self.previous != self.unit else None

    @property
    def _runs_its_unit(self) -> bool:
        return self.configuration == self.unit and self.warm


@dataclass(frozen=True)
class HostSeen:
    """One host. ``gpus`` are the UUIDs of those that answer, None without NVML.

    ``rollout`` is the ID of the live lease's rollout, ``acting`` what is being done under the
    durable mark, if there is one. ``driver`` is the version that NVML tells, ``units`` the state of
    each of the host's own services that it has (``active``). ``settled`` says why this rollout has
    nothing to do here. ``boards`` are its GPUs, also those that no longer answer.
    ``nvml`` says why NVML cannot be read, as ``farrier_agent.gpus.Nvml.kind``. ``accelerator`` is
    ``cuda`` or ``cpu``. ``reboot_required``: upgraded packages ask for one.
    """

    host: str
    boot_id: str | None = None
    agent: str | None = None
    replicas: tuple[ReplicaSeen, ...] = ()
    gpus: tuple[str, ...] | None = None
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    rollout: str | None = None
    acting: str | None = None
    driver: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    settled: str | None = None
    boards: tuple[BoardSeen, ...] = ()
    nvml: str | None = None
    accelerator: str | None = None
    reboot_required: bool | None = None

    def replica(self, name: str) -> ReplicaSeen | None:
        """The replica called *name*."""
        return next((one for one in self.replicas if one.name == name), None)


def seen(
    status: Status,
    *,
    boot_id: str | None = None,
    configurations: Mapping[str, str] | None = None,
    units: Mapping[str, UnitSeen] | None = None,
    waiting: Mapping[str, int] | None = None,
    reboot_required: bool | None = None,
) -> HostSeen:
    """What *status* says; *configurations*, *units* and *waiting* are by replica."""
    lease = getattr(status, "rollout", None)
    verdict = status.health.host if status.health else None
    gpus = None
    if status.gpus is not None:
        gpus = tuple(sorted(gpu.uuid for gpu in status.gpus.devices if gpu.up))
    return HostSeen(
        host=status.host,
        boot_id=boot_id,
        agent=status.agent.version,
        replicas=tuple(
            _replica(
                one,
                status,
                (configurations or {}).get(one.name),
                (units or {}).get(one.name, UnitSeen()),
                waiting or {},
            )
            for one in status.replicas
        ),
        gpus=gpus,
        verdict=verdict.state if verdict else None,
        reasons=tuple(reason.text for reason in verdict.reasons) if verdict else (),
        rollout=lease.rollout if lease else None,
        acting=lease.acting if lease else None,
        driver=status.gpus.driver_version if status.gpus else None,
        units={one.name: one.active_state for one in status.units},
        nvml=status.nvml.kind if status.nvml else None,
        accelerator=status.accelerator,
        reboot_required=reboot_required,
        boards=tuple(
            BoardSeen(gpu.uuid, gpu.index, gpu.up, any(link.up is True for link in gpu.nvlinks))
            for gpu in (status.gpus.devices if status.gpus else ())
        ),
    )


def _replica(
    one: Replica,
    status: Status,
    configuration: str | None,
    unit: UnitSeen,
    waiting: Mapping[str, int],
) -> ReplicaSeen:
    verdict = status.health.replicas.get(one.name) if status.health else None
    askers = tuple(zip(one.drain.asked_by, one.drain.reasons, strict=False)) if one.drain else ()
    return ReplicaSeen(
        name=one.name,
        model=one.model,
        phase=one.phase,
        gate_open=None if one.gate is None else one.gate == "open",
        up=one.up,
        in_flight=one.in_flight,
        waiting=waiting.get(one.name),
        # files are read now, the agent's look may be a tick old
        pending=configuration != unit.unit if configuration and unit.unit else one.restart_pending,
        invocation=one.unit_state.invocation_id if one.unit_state else None,
        restarts=one.restarts,
        configuration=configuration,
        unit=unit.unit,
        previous=unit.previous,
        put_back=unit.put_back,
        verdict=verdict.state if verdict else None,
        reason=one.reason or one.detail,
        drained_by_rollout=any(why.startswith(_OURS) for _, why in askers),
        held_by=tuple(
            f"{who}: {why}" if why else who
            for who, why in askers
            if not why.startswith(_OURS) and who != "systemd"
        ),
        gpus=one.gpus,
    )
