"""The agent's sockets: had once, kept over a new configuration, refused with words."""

from __future__ import annotations

import grp
import os
import socket
from pathlib import Path

import pytest
from farrier_agent.config import AgentConfig
from farrier_agent.listeners import ListenError, Listeners

from tests.agent.host import free_port


def config(root: Path, **fields: object) -> AgentConfig:
    known = {"listen": f"127.0.0.1:{free_port()}", "run_dir": str(root / "run")}
    return AgentConfig(host="gpu01", accelerator="cpu", **{**known, **fields})  # type: ignore[arg-type]


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def port_of(address: str | None) -> int:
    assert address is not None
    return int(address.rpartition(":")[2])


def test_a_socket_that_is_still_wanted_is_the_same_one(tmp_path: Path) -> None:
    ours = Listeners()
    first = config(tmp_path, check_listen=f"127.0.0.1:{free_port()}")
    ours.bind(first)
    waiting = socket.create_connection(("127.0.0.1", port_of(first.listen)))
    given = ours.get("http")
    assert given is not None
    given.close()  # as a server does that ends
    ours.bind(config(tmp_path, listen=first.listen))
    again = ours.get("http")
    assert again is not None
    again.settimeout(5)
    accepted, _ = again.accept()  # who came in between was not turned away
    assert accepted.getpeername() == waiting.getsockname()
    assert not answers(port_of(first.check_listen)), "nobody wants it any more"
    assert ours.get("check") is None
    for one in (accepted, waiting, again):
        one.close()
    ours.close()


def test_one_that_cannot_be_had_leaves_everything_as_it_was(tmp_path: Path) -> None:
    ours = Listeners()
    first = config(tmp_path)
    ours.bind(first)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        fresh = free_port()
        with pytest.raises(ListenError, match=f"port {taken}"):
            ours.bind(
                config(tmp_path, listen=f"127.0.0.1:{fresh}", check_listen=f"127.0.0.1:{taken}")
            )
    assert answers(port_of(first.listen))
    assert not answers(fresh)
    ours.close()
    assert not answers(port_of(first.listen))


def test_a_group_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=r"no group 'nobody-knows-it'.*getent"):
        Listeners().bind(config(tmp_path, control_group="nobody-knows-it"))


def test_the_control_socket_is_for_its_group(tmp_path: Path) -> None:
    own = grp.getgrgid(os.getgid()).gr_name
    ours = Listeners()
    ours.bind(config(tmp_path, control_group=own))
    path = tmp_path / "run" / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    assert path.stat().st_gid == os.getgid()
    ours.close()


def test_two_agents_on_one_socket_are_refused(tmp_path: Path) -> None:
    ours, theirs = Listeners(), Listeners()
    ours.bind(config(tmp_path))
    with pytest.raises(ListenError, match="another agent listens"):
        theirs.bind(config(tmp_path))
    ours.close()
