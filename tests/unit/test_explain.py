"""From an exception to a sentence with a cause and a next step; real exceptions where one can."""

from __future__ import annotations

import errno
import re
import shlex
import socket
import threading
from collections.abc import Callable, Iterator

import paramiko
import pytest
from paramiko.ssh_exception import IncompatiblePeer, NoValidConnectionsError

from farrier.explain import NEXT, Target, explain_connect, explain_sudo, root_cause
from farrier.ssh import SHA1_ALGORITHMS, connect_kwargs, nodelay

TARGET = Target("198.18.9.9", user="admin", key="~/.ssh/id_lab", known_hosts="/tmp/known hosts")
OTHER_PORT = Target("198.18.9.9", port=2222, user="admin")


def connect(port: int, **more: object) -> BaseException:
    """What paramiko raises for a connection to *port* of this machine."""
    client = paramiko.SSHClient()
    try:
        client.connect("127.0.0.1", port, "nobody", "x", allow_agent=False, look_for_keys=False,
                       **{**connect_kwargs(timeout=1), **more})  # fmt: skip
    except Exception as error:  # whatever it is, it is the answer
        return error
    finally:
        client.close()
    raise AssertionError("connected to nothing")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def serve(server: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    def accept() -> None:
        connection, _ = server.accept()
        with connection:
            answer(connection)

    threading.Thread(target=accept, daemon=True).start()


def says(text: str, *parts: str) -> None:
    assert text.startswith("cannot connect: ")
    cause, _, step = text.partition(NEXT)
    assert cause
    assert step, "there is always a next step"
    for part in parts:
        assert part in text


def test_nothing_listens(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    error = connect(port)
    assert isinstance(error, NoValidConnectionsError)
    says(explain_connect(error, TARGET), "198.18.9.9 port 22 refuses", "ssh_port")


def test_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        # a queue that is full: the kernel drops every further SYN
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        error = connect(server.getsockname()[1])
        for sock in waiting:
            sock.close()
    assert isinstance(error, TimeoutError)
    says(explain_connect(error, TARGET), "no answer from 198.18.9.9 port 22 within 10 s", "ping")


def test_something_else_listens(listener: socket.socket) -> None:
    serve(listener, lambda connection: connection.sendall(b"HTTP/1.0 400 Bad\r\n" * 200))
    error = connect(listener.getsockname()[1])
    says(explain_connect(error, TARGET), "not as an SSH server", TARGET.ssh)


def test_a_server_with_sha1_only(listener: socket.socket) -> None:
    def old_server(connection: socket.socket) -> None:
        sha2 = {"keys": ["rsa-sha2-256", "rsa-sha2-512"]}
        transport = paramiko.Transport(connection, disabled_algorithms=sha2)
        transport.add_server_key(paramiko.RSAKey.generate(2048))
        try:
            transport.start_server(server=paramiko.ServerInterface())
        except paramiko.SSHException:
            transport.close()

    serve(listener, old_server)
    error = connect(listener.getsockname()[1])
    assert isinstance(error, IncompatiblePeer)
    says(explain_connect(error, TARGET), "SHA-1", "ssh-keygen -A")


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_no_route(number: int) -> None:
    says(explain_connect(OSError(number, "…"), TARGET), "no route to 198.18.9.9", "ip route get")


def test_a_name_that_does_not_resolve() -> None:
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    target = Target("gpu01.invalid")
    says(explain_connect(error, target), "'gpu01.invalid' does not resolve", "ssh_hostname")


def test_a_refused_login_names_user_key_and_the_same_connection_by_hand() -> None:
    text = explain_connect(paramiko.AuthenticationException("Authentication failed."), OTHER_PORT)
    says(text, "refused the login of admin", "your agent's and ~/.ssh's keys")
    assert "ssh -p 2222 admin@198.18.9.9 true" in text
    text = explain_connect(paramiko.AuthenticationException(), TARGET)
    assert "the key ~/.ssh/id_lab" in text
    target = Target("inner", ssh_config="/a b/config", jump="gw01")
    text = explain_connect(paramiko.AuthenticationException(), target)
    assert "or gw01 did" in text
    assert "ssh -F '/a b/config' inner true" in text


def test_an_encrypted_key_is_not_a_refused_login() -> None:
    text = explain_connect(paramiko.PasswordRequiredException("x"), TARGET)
    says(text, "encrypted", "ssh-add ~/.ssh/id_lab")


def test_an_unknown_host_key_names_file_and_scan() -> None:
    error = paramiko.SSHException("StrictPolicy: No host key for 198.18.9.9 found in known_hosts")
    text = explain_connect(error, TARGET)
    says(text, "is not in /tmp/known hosts", "fingerprint", "console")
    assert f"ssh-keyscan -t ed25519 198.18.9.9 | tee -a {shlex.quote('/tmp/known hosts')}" in text
    error = paramiko.SSHException("No host key for [198.18.9.9]:2222 found in known_hosts")
    assert "ssh-keyscan -t ed25519 -p 2222 198.18.9.9" in explain_connect(error, OTHER_PORT)


def test_a_changed_host_key_warns_before_it_helps() -> None:
    got, expected = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()
    text = explain_connect(paramiko.BadHostKeyException("198.18.9.9", got, expected), OTHER_PORT)
    says(text, "has CHANGED", got.fingerprint, expected.fingerprint)
    assert text.index("compare the fingerprint") < text.index("ssh-keygen -R")
    assert "ssh-keygen -R '[198.18.9.9]:2222' -f ~/.ssh/known_hosts" in text
    assert "ssh-keyscan -t ed25519 -p 2222 198.18.9.9 >> ~/.ssh/known_hosts" in text


def test_a_jump_host_that_cannot_reach_the_host() -> None:
    error = paramiko.ChannelException(2, "Connect failed")
    text = explain_connect(error, Target("inner", jump="gw01"))
    says(text, "jump host gw01 was reached", "cannot open inner port 22", "Connect failed")


@pytest.mark.parametrize("error", [EOFError(), paramiko.SSHException("odd"), RuntimeError("odd")])
def test_whatever_else_there_is_has_a_next_step(error: Exception) -> None:
    says(explain_connect(error, TARGET), "198.18.9.9 port 22")


def test_the_root_of_a_chain_is_found() -> None:
    root = EOFError()

    def wrapping() -> None:
        try:
            raise root
        except EOFError as error:
            raise paramiko.SSHException("wrapped") from error

    with pytest.raises(paramiko.SSHException) as caught:
        wrapping()
    assert root_cause(caught.value) is root


@pytest.mark.parametrize(
    ("output", "cause", "step"),
    [
        ("sudo: a password is required", "wants a password", "--same-sudo-password"),
        ("sudo-rs: interactive authentication is required", "wants a password", "NOPASSWD"),
        ("Sorry, try again.\nsudo: 3 incorrect password attempts", "refused the password", "type"),
        ("admin is not in the sudoers file.", "refuses this user", "usermod -aG sudo admin"),
        ("Sorry, user admin is not allowed to execute '/bin/sh' as root on gpu01.",
         "refuses this user", "/etc/sudoers.d"),
        ("sh: 1: sudo: not found", "is not installed", "apt-get install sudo"),
        ("bash: line 1: sudo: command not found", "is not installed", "apt-get install sudo"),
        ("sudo: sorry, you must have a tty to run sudo", "terminal", "Defaults:admin !requiretty"),
    ],
)  # fmt: skip
def test_sudo_is_explained(output: str, cause: str, step: str) -> None:
    text = explain_sudo(output, "admin")
    assert text is not None
    before, _, after = text.partition(NEXT)
    assert cause in before
    assert step in after


@pytest.mark.parametrize(
    "output", ["", "grep: /etc/x: No such file or directory", "sudo: unable to resolve host gpu01"]
)
def test_other_failures_are_not_sudos(output: str) -> None:
    assert explain_sudo(output, "admin") is None


# how connections are made


def test_small_packets_are_not_held_back(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        transport = nodelay(sock, disabled_algorithms=SHA1_ALGORITHMS)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        transport.close()


def test_a_socket_pair_is_no_reason_to_fail() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        nodelay(ours).close()


def test_nothing_that_rests_on_sha1_or_md5_is_negotiated(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as sock:
        transport = nodelay(sock, disabled_algorithms=connect_kwargs()["disabled_algorithms"])
        offered = [
            *transport.preferred_keys,
            *transport.preferred_pubkeys,
            *transport.preferred_kex,
            *transport.preferred_macs,
        ]
        transport.close()
    assert offered
    assert not [name for name in offered if re.search(r"sha1$|sha1-96|md5|^ssh-rsa", name)]
