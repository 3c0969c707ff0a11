"""Somebody else on the bus who asks systemd for jobs, as ``systemctl --no-block`` does."""

from __future__ import annotations

from pathlib import Path

from jeepney import DBusAddress, MessageType, new_method_call
from jeepney.io.blocking import open_dbus_connection

NAME = "org.freedesktop.systemd1"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", bus_name=NAME, interface=f"{NAME}.Manager")

__all__ = ["enqueue"]


def enqueue(bus: Path, verb: str, unit: str) -> None:
    """Have a job made: *verb* is ``start``, ``stop`` or ``restart``. It goes on after this."""
    call = new_method_call(_MANAGER, f"{verb.title()}Unit", "ss", (unit, "replace"))
    with open_dbus_connection(bus=f"unix:path={bus}") as connection:
        answer = connection.send_and_get_reply(call, timeout=20)
    if answer.header.message_type is not MessageType.method_return:
        raise RuntimeError(f"{verb} {unit}: {answer.body}")
