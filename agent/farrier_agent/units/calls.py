"""What the agent asks systemd for over the bus: org.freedesktop.systemd1(5)."""

from __future__ import annotations

from typing import Any

from jeepney import DBusAddress, HeaderFields, Message

from farrier_agent.units.bus import Bus, CallError
from farrier_agent.units.state import UnitsError, UnitState, parse

__all__ = [
    "NAME",
    "Removed",
    "changed_path",
    "job_removed",
    "load",
    "ping",
    "read",
    "resynchronise",
    "start_job",
    "subscribe",
    "watch_manager",
    "watch_unit",
]

NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
_MANAGER = DBusAddress(PATH, bus_name=NAME, interface=f"{NAME}.Manager")
_PEER = DBusAddress(PATH, bus_name=NAME, interface="org.freedesktop.DBus.Peer")
_DENIED = {
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
}

Removed = tuple[str, str]
"""A job's object path and its result: ``done``, ``canceled``, ``timeout``, ``failed``, …"""


async def subscribe(bus: Bus) -> None:
    """Have systemd send its signals. Again after :func:`resynchronise`: a new one knows nobody."""
    try:
        await bus.call(_MANAGER, "Subscribe")
    except CallError as error:
        if error.name != f"{NAME}.AlreadySubscribed":
            raise


async def watch_manager(bus: Bus) -> None:
    """Have the daemon send what is about jobs, reloads and systemd's own comings and goings.

    Once for a connection: the daemon keeps every rule that it is given, and not more than 512.
    """
    for member in ("JobRemoved", "Reloading"):
        await bus.match(
            f"type='signal',sender='{NAME}',path='{PATH}',interface='{NAME}.Manager',"
            f"member='{member}'"
        )
    await bus.match(
        "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
        f"member='NameOwnerChanged',arg0='{NAME}'"
    )


def changed_path(signal: Message) -> str | None:
    """The object whose properties *signal* says have changed; None when it is about else."""
    if signal.header.fields.get(HeaderFields.member) != "PropertiesChanged":
        return None
    path = signal.header.fields.get(HeaderFields.path)
    return path if isinstance(path, str) else None


async def load(bus: Bus, unit: str) -> str:
    """The object path of *unit*, loaded if it was not; also of one that does not exist.

    It is made of the unit's own name, where *unit* may be an alias; its signals have that path.
    """
    (path,) = await bus.call(_MANAGER, "LoadUnit", "s", (unit,))
    if not isinstance(path, str):
        raise UnitsError(f"systemd names {unit} by {path!r:.40}")
    return path


async def watch_unit(bus: Bus, path: str) -> None:
    """Have the daemon send the property changes of the unit at *path*; once for a connection."""
    await bus.match(
        f"type='signal',sender='{NAME}',path='{path}',"
        "interface='org.freedesktop.DBus.Properties',member='PropertiesChanged'"
    )


async def read(bus: Bus, unit: str, path: str) -> UnitState:
    """The unit as it is. All properties come in one answer, so they are of one moment."""
    properties = DBusAddress(path, bus_name=NAME, interface="org.freedesktop.DBus.Properties")
    (found,) = await bus.call(properties, "GetAll", "s", ("",))
    return parse(unit, found)


async def start_job(bus: Bus, method: str, unit: str, mode: str) -> str:
    """Call *method* (``StartUnit``, …) for *unit*; the path of the job.

    Raises BusLostError when it is not known whether there is one (systemd went away over the
    answer, as in a daemon-reexec), UnitsError when systemd refuses.
    """
    try:
        (job,) = await bus.call(_MANAGER, method, "ss", (unit, mode), timeout=25)
    except CallError as error:
        verb = method.removesuffix("Unit").lower()
        if error.name in _DENIED:
            raise UnitsError(f"systemd does not let this user {verb} {unit}: {error}") from error
        raise UnitsError(f"systemd does not {verb} {unit}: {error}") from error
    if not isinstance(job, str):
        raise UnitsError(f"systemd answers {method} with {job!r:.40}")
    return job


async def ping(bus: Bus) -> None:
    """Have systemd itself answer, not only the daemon."""
    await bus.call(_PEER, "Ping", timeout=10)


def job_removed(signal: Message) -> Removed | None:
    """What *signal* says about a job that is over; None when it is about something else."""
    if signal.header.fields.get(HeaderFields.member) != "JobRemoved":
        return None
    body: tuple[Any, ...] = tuple(signal.body)
    if len(body) != 4 or not isinstance(body[1], str) or not isinstance(body[3], str):
        return None
    return body[1], body[3]


def resynchronise(signal: Message) -> bool:
    """After *signal* nothing that was read before can be relied on.

    That is when systemd has reloaded its unit files, or came back as another connection: after a
    daemon-reexec, or because the bus was started anew.
    """
    member = signal.header.fields.get(HeaderFields.member)
    if member == "Reloading":
        return bool(signal.body) and signal.body[0] is False
    # a name that has an owner again; without one there is nobody to ask
    return member == "NameOwnerChanged" and len(signal.body) == 3 and bool(signal.body[2])
