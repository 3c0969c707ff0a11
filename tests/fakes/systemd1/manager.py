"""The bus's daemon and systemd's manager: what each method does, and when signals are sent."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, new_signal

from tests.fakes.systemd1.orders import Orders
from tests.fakes.systemd1.unit import Job, Unit, path_of
from tests.fakes.systemd1.wire import Call, CallError, Peer, Signal

__all__ = ["Manager"]

DBUS = "org.freedesktop.DBus"
NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
_DAEMON = DBusAddress("/org/freedesktop/DBus", interface=DBUS)
_MANAGER = DBusAddress(PATH, interface=f"{NAME}.Manager")
EVERY = 0.02
"""Seconds between two looks at the file of orders."""

Returned = tuple[str, tuple[Any, ...]]
_VERBS = {"StartUnit": "start", "StopUnit": "stop", "RestartUnit": "restart"}


class Manager:
    """Everything that is on the bus, by the orders in the file at *path*."""

    def __init__(self, path: Path) -> None:
        self._orders = Orders(path)
        self._now = path.with_name(path.name + ".now")
        self._log = path.with_name(path.name + ".calls")
        self._log.touch()
        self._taken: dict[str, Any] = {}
        self._units: dict[str, Unit] = {}
        self._peers: dict[Peer, None] = {}
        self._names = (f":1.{number}" for number in itertools.count(2))
        self._jobs = itertools.count(1)
        self._take()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        if self._orders.now.get("drop"):
            writer.transport.abort()
            return
        peer = Peer(next(self._names), reader, writer, self._answer)
        self._peers[peer] = None
        try:
            await peer.serve()
        finally:
            self._peers.pop(peer, None)

    async def follow(self) -> None:
        """Take orders as they come, for ever."""
        while True:
            self._refresh()
            await asyncio.sleep(EVERY)

    def close(self) -> None:
        """End every process that a unit runs."""
        for unit in self._units.values():
            unit.close()

    # -- orders ----------------------------------------------------------------------------------

    def _refresh(self) -> None:
        if self._orders.refresh():
            self._take()

    def _take(self) -> None:
        old, new = self._taken, self._orders.now
        self._taken = new
        for name, programs in new.get("programs", {}).items():
            unit = self._unit(name)
            unit.programs, unit.load = programs, "loaded"
        for name in {*old.get("units", {}), *new.get("units", {})}:
            before, after = (one.get("units", {}).get(name) for one in (old, new))
            if before != after:
                self._unit(name).force(after or {"LoadState": "not-found"})
        if new.get("away") and not old.get("away"):
            self._owner_changed(":1.1", "")
        if old.get("away") and not new.get("away"):
            for peer in self._peers:
                peer.subscribed = False
            self._owner_changed("", ":1.1")
        if old and old.get("reload") != new.get("reload"):
            self._signal(_MANAGER, "Reloading", "b", (True,))
            self._signal(_MANAGER, "Reloading", "b", (False,))
        if new.get("drop"):
            for peer in list(self._peers):
                peer.drop()
        self._write()

    def _unit(self, name: str) -> Unit:
        if name not in self._units:
            self._units[name] = Unit(name, self._changed, self._removed)
        return self._units[name]

    def _write(self) -> None:
        units = {
            unit.name: {
                "ActiveState": unit.active,
                "SubState": unit.sub,
                "InvocationID": unit.invocation,
                "MainPID": unit.main_pid,
                "NRestarts": unit.restarts,
                "Result": unit.result,
            }
            for unit in self._units.values()
        }
        fresh = self._now.with_suffix(".fresh")
        fresh.write_text(json.dumps({"serial": self._taken.get("serial"), "units": units}))
        fresh.replace(self._now)

    # -- calls -----------------------------------------------------------------------------------

    async def _answer(self, peer: Peer, call: Call) -> Returned:
        # what was ordered before the call was made holds for it, and what waits for a file, too
        self._refresh()
        words = (call.member, *(str(value) for value in call.body))
        with self._log.open("a", encoding="utf-8") as log:
            log.write(" ".join(words) + "\n")
        if call.destination == DBUS:
            return self._daemon(peer, call)
        if call.destination != NAME or self._orders.now.get("away"):
            raise CallError(
                f"{DBUS}.Error.ServiceUnknown",
                f"The name {call.destination} was not provided by any .service files",
            )
        await self._orders.pass_on(call.member)
        return self._systemd(peer, call)

    def _daemon(self, peer: Peer, call: Call) -> Returned:
        there = not self._orders.now.get("away")
        match call.member, call.body:
            case "Hello", ():
                return "s", (peer.name,)
            case "AddMatch", (str(rule),):
                peer.match(rule)
                return "", ()
            case "RemoveMatch", (str(rule),):
                peer.unmatch(rule)
                return "", ()
            case "NameHasOwner", (str(name),):
                return "b", (name == DBUS or (name == NAME and there),)
            case "GetNameOwner", (str(name),) if name == NAME and there:
                return "s", (":1.1",)
            case "GetNameOwner", (str(name),):
                raise CallError(f"{DBUS}.Error.NameHasNoOwner", f"no owner of the name {name}")
        raise CallError(f"{DBUS}.Error.UnknownMethod", f"the stand-in does not know {call.member}")

    def _systemd(self, peer: Peer, call: Call) -> Returned:
        interface = call.interface.removeprefix(f"{NAME}.")
        match interface, call.member, call.body:
            case "org.freedesktop.DBus.Peer", "Ping", ():
                return "", ()
            case "Manager", "Subscribe", ():
                if peer.subscribed:
                    raise CallError(f"{NAME}.AlreadySubscribed", "Client is already subscribed.")
                peer.subscribed = True
                return "", ()
            case "Manager", "LoadUnit", (str(name),):
                return "o", (path_of(self._unit(_valid(name)).name),)
            case "Manager", "GetUnit", (str(name),):
                if _valid(name) not in self._units:
                    raise CallError(f"{NAME}.NoSuchUnit", f"Unit {name} not loaded.")
                return "o", (path_of(name),)
            case "Manager", ("StartUnit" | "StopUnit" | "RestartUnit") as method, (str(name), mode):
                return "o", (self._enqueue(method, _valid(name), mode).path,)
            case "org.freedesktop.DBus.Properties", "GetAll", (str(which),):
                return "a{sv}", (self._properties(call.path, which),)
        raise CallError(
            f"{DBUS}.Error.UnknownMethod", f"the stand-in does not know {interface} {call.member}"
        )

    def _enqueue(self, method: str, name: str, mode: object) -> Job:
        if mode != "replace":
            raise CallError(f"{DBUS}.Error.InvalidArgs", f"the stand-in knows no mode {mode}")
        unit = self._unit(name)
        if unit.load == "not-found" and method != "StopUnit":
            raise CallError(f"{NAME}.NoSuchUnit", f"Unit {name} not found.")
        if unit.load == "not-found":
            raise CallError(f"{NAME}.NoSuchUnit", f"Unit {name} not loaded.")
        return unit.enqueue(_VERBS[method], next(self._jobs))

    def _properties(self, path: str, interface: str) -> Mapping[str, tuple[str, Any]]:
        for unit in self._units.values():
            if path_of(unit.name) == path:
                of = {"Unit": unit.unit_properties(), "Service": unit.service_properties()}
                if not interface:
                    return {**of["Unit"], **of["Service"]}
                if interface.removeprefix(f"{NAME}.") in of:
                    return of[interface.removeprefix(f"{NAME}.")]
                raise CallError(f"{DBUS}.Error.UnknownInterface", f"Unknown interface {interface}")
        raise CallError(f"{DBUS}.Error.UnknownObject", f"Unknown object '{path}'.")

    # -- signals ---------------------------------------------------------------------------------

    def _changed(self, unit: Unit) -> None:
        of = DBusAddress(path_of(unit.name), interface=f"{DBUS}.Properties")
        for kind, properties in (
            ("Service", unit.service_properties()),
            ("Unit", unit.unit_properties()),
        ):
            body: tuple[Any, ...] = (f"{NAME}.{kind}", properties, [])
            self._signal(of, "PropertiesChanged", "sa{sv}as", body)
        self._write()

    def _removed(self, unit: Unit, job: Job, result: str) -> None:
        body = (job.number, job.path, unit.name, result)
        self._signal(_MANAGER, "JobRemoved", "uoss", body)

    def _owner_changed(self, old: str, new: str) -> None:
        signal = new_signal(_DAEMON, "NameOwnerChanged", "sss", (NAME, old, new))
        for peer in list(self._peers):
            peer.hear(Signal(DBUS, signal))

    def _signal(self, of: DBusAddress, member: str, signature: str, body: tuple[Any, ...]) -> None:
        # systemd sends to all when anybody has subscribed
        if self._orders.now.get("away") or not any(peer.subscribed for peer in self._peers):
            return
        signal = Signal(NAME, new_signal(of, member, signature, body))
        for peer in list(self._peers):
            peer.hear(signal)


def _valid(name: str) -> str:
    stem, dot, kind = name.rpartition(".")
    if not stem or not dot or kind not in {"service", "target", "socket", "timer"}:
        raise CallError(f"{DBUS}.Error.InvalidArgs", f"Unit name {name} is not valid.")
    return name
