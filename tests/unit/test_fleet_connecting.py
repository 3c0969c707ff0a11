"""fabric's connections as they are made for many hosts at once, before any of them opens."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from farrier.fleet.connecting import connection
from farrier.fleet.target import Login


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty_threads")
def test_connections_made_side_by_side_do_not_disturb_one_another() -> None:
    failed: list[BaseException] = []

    def make(name: str) -> None:
        try:
            for number in range(100):
                made = connection(Login(f"192.0.2.{number}", user=name, jumps=(Login("front"),)))
                assert (made.host, made.user) == (f"192.0.2.{number}", name)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=make, args=(f"u{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_only_the_hosts_own_keys_are_trusted(tmp_path: Path) -> None:
    keys = [paramiko.ECDSAKey.generate() for _ in range(3)]
    lines = [
        f"{name} {key.get_name()} {key.get_base64()}"
        for name, key in zip(("192.0.2.1", "[192.0.2.1]:2222", "front"), keys, strict=True)
    ]
    known = tmp_path / "known_hosts"
    known.write_text("\n".join(lines))
    absent = str(tmp_path / "absent")
    login = Login(
        "192.0.2.1",
        port=2222,
        user="u",
        known_hosts=(absent, str(known)),
        jumps=(Login("front", known_hosts=(str(known),)),),
    )
    made = connection(login)
    assert list(made.client.get_host_keys()) == ["[192.0.2.1]:2222"]
    assert list(made.gateway.client.get_host_keys()) == ["front"]
    for each in (made, made.gateway):
        with pytest.raises(paramiko.SSHException, match="No host key for h found in known_hosts"):
            each.client._policy.missing_host_key(each.client, "h", keys[0])

    known.write_text("")
    assert list(connection(login).client.get_host_keys()) == [], "the file is read anew"
