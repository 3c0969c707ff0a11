"""The kernel's TCP sockets of this host: netlink's sock_diag(7), or ``/proc/net/tcp`` and ``tcp6``.

The layouts are those of ``linux/netlink.h``, ``linux/sock_diag.h`` and ``linux/inet_diag.h``:
numbers in the host's byte order except ports and addresses, which are in the network's. ``/proc``
shows an address as words of the host's byte order (proc(5)).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

__all__ = ["Socket", "SocketsError", "State", "parse_diag", "parse_proc", "read", "read_proc"]

IP = ipaddress.IPv4Address | ipaddress.IPv6Address

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x1, 0x10, 0x300
_HEADER = struct.Struct("=IHHII")
# inet_diag_req_v2: family, protocol, extensions, padding, states; the id: ports, addresses,
# interface, cookie
_REQUEST = struct.Struct("=BBBxI2s2s16s16sIII")
# inet_diag_msg: family, state, timer, retransmits; the id; expires, queues, uid, inode
_ANSWER = struct.Struct("=BBBB2s2s16s16sIIIIIIII")
_TIMEOUT = 2.0
_TRIES = 3


class State(IntEnum):
    """States of a TCP socket, numbered as in ``include/net/tcp_states.h``."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12
    BOUND_INACTIVE = 13


class SocketsError(RuntimeError):
    """The sockets could not be read, or what was read is not what the kernel writes."""


@dataclass(frozen=True)
class Socket:
    """One TCP socket. ``unsent`` is bytes that its peer has not acknowledged (0 for a listener)."""

    state: State
    local: IP
    local_port: int
    remote: IP
    remote_port: int
    uid: int
    inode: int
    unsent: int = 0


def read(
    *, remote_port: int | None = None, local_port: int | None = None, proc: Path = Path("/proc")
) -> list[Socket]:
    """The TCP sockets of this network namespace, of both families, towards or from a port.

    From the kernel over netlink, and from *proc* where that is not to be had. Raises
    :class:`SocketsError`.
    """
    try:
        found = [
            one
            for family in (socket.AF_INET, socket.AF_INET6)
            for one in _dump(family, remote_port or 0, local_port or 0)
        ]
    except (OSError, SocketsError):
        found = read_proc(proc)
    return [
        one
        for one in found
        if (remote_port is None or one.remote_port == remote_port)
        and (local_port is None or one.local_port == local_port)
    ]


def read_proc(proc: Path = Path("/proc")) -> list[Socket]:
    """The TCP sockets that *proc* shows. Raises :class:`SocketsError`."""
    found = []
    for name in ("tcp", "tcp6"):
        path = proc / "net" / name
        try:
            found += parse_proc(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            if name == "tcp":
                raise SocketsError(f"{path}: No such file or directory") from None
            # tcp6 is missing where the kernel was booted without IPv6
        except (OSError, UnicodeDecodeError, SocketsError) as error:
            raise SocketsError(f"{path}: {error}") from error
    return found


def parse_proc(text: str) -> list[Socket]:
    """Parse ``/proc/net/tcp`` or ``tcp6``. Raises :class:`SocketsError` with the line's number."""
    return [_proc_line(number, line) for number, line in enumerate(text.splitlines()[1:], 2)]


def _proc_line(number: int, line: str) -> Socket:
    try:
        return _proc_words(line.split())
    except (ValueError, IndexError):
        raise SocketsError(f"line {number} is not understood: {line[:80]!r}") from None


def _proc_words(words: list[str]) -> Socket:
    local, local_port = _proc_address(words[1])
    remote, remote_port = _proc_address(words[2])
    state = State(int(words[3], 16))
    unsent, _, _ = words[4].partition(":")
    return Socket(
        state=state,
        local=local,
        local_port=local_port,
        remote=remote,
        remote_port=remote_port,
        uid=int(words[7]),
        inode=int(words[9]),
        unsent=0 if state is State.LISTEN else int(unsent, 16),
    )


def _proc_address(text: str) -> tuple[IP, int]:
    address, _, port = text.partition(":")
    raw = bytes.fromhex(address)
    if len(raw) not in {4, 16} or len(port) != 4:
        raise ValueError(text)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return _ip(raw), int(port, 16)


def _ip(raw: bytes) -> IP:
    """An address; one of IPv4 that an IPv6 socket holds is one of IPv4."""
    if len(raw) == 4:
        return ipaddress.IPv4Address(raw)
    six = ipaddress.IPv6Address(raw)
    return six.ipv4_mapped or six


def _dump(family: int, remote_port: int, local_port: int) -> list[Socket]:
    """Ask the kernel for the sockets of one family. Raises OSError or :class:`SocketsError`."""
    states = sum(1 << state for state in State)
    request = _REQUEST.pack(
        family,
        socket.IPPROTO_TCP,
        0,
        states,
        local_port.to_bytes(2, "big"),
        remote_port.to_bytes(2, "big"),
        bytes(16),
        bytes(16),
        0,
        0xFFFFFFFF,
        0xFFFFFFFF,
    )
    flags = _NLM_F_REQUEST | _NLM_F_DUMP
    head = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, flags, 1, 0)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(_TIMEOUT)
        for _ in range(_TRIES):
            link.sendto(head + request, (0, 0))
            parts, whole = [], False
            while not whole:
                part, _flags, _, _ = link.recvmsg(1 << 18)
                parts.append(part)
                whole = _ends(part)
            found = parse_diag(b"".join(parts))
            if found is not None:
                return found
    raise SocketsError("the kernel's sockets changed while it listed them, three times")


def _ends(part: bytes) -> bool:
    return any(kind in {_NLMSG_DONE, _NLMSG_ERROR} for kind, _, _ in _messages(part))


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each netlink message in *data*."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEADER.size:
            raise SocketsError("netlink: half a header")
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= length <= len(data) - at:
            raise SocketsError(f"netlink: a message of {length} bytes in {len(data) - at}")
        yield kind, flags, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def parse_diag(data: bytes) -> list[Socket] | None:
    """Parse a dump of sock_diag, from its first message to its NLMSG_DONE.

    None when the kernel says that the list changed meanwhile and is to be asked for again. Raises
    :class:`SocketsError`.
    """
    found: list[Socket] = []
    for kind, flags, body in _messages(data):
        if flags & _NLM_F_DUMP_INTR:
            return None
        if kind == _NLMSG_DONE:
            return found
        if kind == _NLMSG_ERROR:
            number = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
            raise SocketsError(f"netlink: the kernel refuses with error {number}")
        if kind == _SOCK_DIAG_BY_FAMILY:
            found.append(_diag_message(body))
    raise SocketsError("netlink: the list has no end")


def _diag_message(body: bytes) -> Socket:
    if len(body) < _ANSWER.size:
        raise SocketsError(f"netlink: a socket in {len(body)} bytes")
    (
        family,
        number,
        _,
        _,
        local_port,
        remote_port,
        local,
        remote,
        _,
        _,
        _,
        _,
        _,
        unsent,
        uid,
        inode,
    ) = _ANSWER.unpack_from(body)
    size = {socket.AF_INET: 4, socket.AF_INET6: 16}.get(family)
    if size is None or number not in State.__members__.values():
        raise SocketsError(f"netlink: a socket of family {family} in state {number}")
    state = State(number)
    return Socket(
        state=state,
        local=_ip(local[:size]),
        local_port=int.from_bytes(local_port, "big"),
        remote=_ip(remote[:size]),
        remote_port=int.from_bytes(remote_port, "big"),
        uid=uid,
        inode=inode,
        # of a listener this is the length of its backlog
        unsent=0 if state is State.LISTEN else unsent,
    )
