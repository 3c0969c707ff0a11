"""A ``systemctl`` for the stand-in: ``show``, ``start``, ``stop`` and ``reset-failed`` of units.

    python -m tests.fakes.systemd1.program BUS stop -- engine-tiny.service

As the real one it waits for the end of what it asked for, and ends with 1 where that failed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from tests.fakes.systemd1.systemctl import NAME, enqueue

SECONDS = 60.0
_MANAGER = DBusAddress("/org/freedesktop/systemd1", bus_name=NAME, interface=f"{NAME}.Manager")
_PROPERTIES = "org.freedesktop.DBus.Properties"


def main(arguments: list[str]) -> int:
    """Do it; the exit code."""
    bus, verb, *words = arguments
    units = words[words.index("--") + 1 :]
    with open_dbus_connection(bus=f"unix:path={bus}") as connection:
        if verb == "show":
            print("\n\n".join(_shown(connection, unit) for unit in units))
            return 0
        if verb == "reset-failed":
            return 0
        codes = [_job(connection, Path(bus), verb, unit) for unit in units]
    return max(codes, default=0)


def _shown(connection: DBusConnection, unit: str) -> str:
    found = {"Id": unit, **_of(connection, unit)}
    return "\n".join(f"{name}={found[name]}" for name in ("Id", "LoadState", "ActiveState"))


def _of(connection: DBusConnection, unit: str) -> dict[str, Any]:
    call = new_method_call(_MANAGER, "LoadUnit", "s", (unit,))
    (path,) = connection.send_and_get_reply(call, timeout=20).body
    address = DBusAddress(path, bus_name=NAME, interface=_PROPERTIES)
    call = new_method_call(address, "GetAll", "s", (f"{NAME}.Unit",))
    (answer,) = connection.send_and_get_reply(call, timeout=20).body
    return {name: value for name, (_, value) in answer.items()}


def _job(connection: DBusConnection, bus: Path, verb: str, unit: str) -> int:
    before = _of(connection, unit)
    if before["LoadState"] == "not-found":
        print(f"Failed to {verb} {unit}: Unit {unit} not loaded.", file=sys.stderr)
        return 5
    wanted = {"start": {"active"}, "stop": {"inactive", "failed"}}[verb]
    ended = {"active", "inactive", "failed"}
    enqueue(bus, verb, unit)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        now = _of(connection, unit)
        if now["ActiveState"] in wanted:
            return 0
        if now["ActiveState"] in ended and now["InvocationID"] != before["InvocationID"]:
            break
        time.sleep(0.02)
    print(f"Job for {unit} failed because the control process exited.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
