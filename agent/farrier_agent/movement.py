"""Whether anything moves on the sockets towards engines: bytes by socket, from the kernel.

For engines that tell nothing of their work. The kernel's sock_diag(7) gives the ``tcp_info`` of
each socket (``linux/inet_diag.h``, ``linux/tcp.h``; numbers in the host's byte order, ports in the
network's); /proc/net/tcp has no such thing, so without netlink there is no answer, and no verdict.

The kernel walks its whole table of sockets for each question, which takes a millisecond and more
(262,144 buckets on a machine with 24 GiB), and is then told by a filter (``struct
inet_diag_bc_op``) which sockets are wanted: so one question for many ports costs what one port
does.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Bytes", "Movement", "MovementError", "Seen", "parse", "read", "step"]

_SOCK_DIAG, _BY_FAMILY, _INFO = 4, 20, 2
_ERROR, _DONE = 2, 3
_DUMP = 0x301
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI2s2s16s16sIII")
_ANSWER = struct.Struct("=BBBB2s2s16s16sIIIIIIII")
_ATTRIBUTE = struct.Struct("=HH")
# bytes_acked and bytes_received: since Linux 4.1, behind 8 bytes, 24 words and two rates
_TCP_INFO_BYTES = struct.Struct("=120xQQ")
_STATES = 1 << 1 | 1 << 2 | 1 << 8  # ESTABLISHED, SYN_SENT, CLOSE_WAIT
_TIMEOUT = 2.0
_BYTECODE = 1
_OP = struct.Struct("=BBH")
_JMP, _D_GE, _D_LE = 1, 4, 5
_MAPPED = bytes(10) + b"\xff\xff"


class MovementError(RuntimeError):
    """The kernel did not tell; the message says why."""


@dataclass(frozen=True)
class Bytes:
    """One socket towards an engine, by its ``inode``: a client's, connected or connecting.

    ``sent`` has arrived at the engine, ``received`` came from it, ``unread`` of that is still to be
    read on this side. ``loopback``: the other side is on this host's loopback.
    """

    inode: int
    uid: int
    port: int
    sent: int
    received: int
    unread: int
    loopback: bool = True


@dataclass(frozen=True)
class Movement:
    """What was on the sockets of one engine at one look, as liveness.Sample wants it.

    ``moved`` is how many looks saw a byte move or a request end; a new request is no movement.
    """

    moved: int = 0
    sockets: int = 0
    unread: int = 0
    by_inode: Mapping[int, tuple[int, int]] = field(default_factory=dict)


Seen = Iterable[Bytes]


def step(before: Movement, seen: Seen, port: int, *, nginx_uid: int) -> Movement:
    """The movement on nginx's sockets towards the engine's *port*, after *before*."""
    mine = [one for one in seen if one.port == port and one.uid == nginx_uid]
    now = {one.inode: (one.sent, one.received) for one in mine}
    # one that ended may have been answered: that is no standstill
    moved = any(now.get(inode) != bytes_ for inode, bytes_ in before.by_inode.items())
    return Movement(
        moved=before.moved + moved,
        sockets=len(mine),
        unread=sum(1 for one in mine if one.unread),
        by_inode=now,
    )


def read(*ports: int) -> list[Bytes]:
    """The sockets of this host towards *ports*, at least one. Raises MovementError."""
    found: list[Bytes] = []
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            found += parse(_dump(family, ports))
    except OSError as error:
        raise MovementError(f"sockets cannot be read over netlink: {error}") from error
    return found


def _filter(ports: Sequence[int]) -> bytes:
    """The program that lets sockets towards *ports* pass: a block of five operations for each.

    A jump counts in bytes; to the program's end it lets pass, to four bytes behind it does not.
    """
    left = 20 * len(ports)
    code = b""
    for port in ports:
        no = (left + 4, left - 8 + 4) if left == 20 else (20, 12)
        code += _OP.pack(_D_GE, 8, no[0]) + _OP.pack(0, 0, port)
        code += _OP.pack(_D_LE, 8, no[1]) + _OP.pack(0, 0, port)
        code += _OP.pack(_JMP, 4, left - 16)
        left -= 20
    return code


def _dump(family: int, ports: Sequence[int]) -> bytes:
    every = 0xFFFFFFFF
    nowhere, extensions = bytes(16), 1 << (_INFO - 1)
    code = _filter(ports)
    request = _REQUEST.pack(
        *(family, socket.IPPROTO_TCP, extensions, _STATES, bytes(2), bytes(2)),
        *(nowhere, nowhere, 0, every, every),
    )
    request += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(code), _BYTECODE) + code
    head = _HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _DUMP, 1, 0)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _SOCK_DIAG) as link:
        link.settimeout(_TIMEOUT)
        link.sendto(head + request, (0, 0))
        whole = b""
        while not any(kind in {_DONE, _ERROR} for kind, _ in _messages(whole)):
            whole += link.recv(1 << 18)
        return whole


def parse(data: bytes) -> list[Bytes]:
    """The sockets in *data*, a dump of sock_diag with ``tcp_info``. Raises MovementError."""
    found = []
    for kind, body in _messages(data):
        if kind == _ERROR:
            raise MovementError("the kernel refuses to tell the sockets")
        if kind == _BY_FAMILY:
            found.append(_socket(body))
    return found


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each netlink message in *data*."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEADER.size:
            raise MovementError("netlink: half a header")
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= length <= len(data) - at:
            raise MovementError(f"netlink: a message of {length} bytes in {len(data) - at}")
        yield kind, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _socket(body: bytes) -> Bytes:
    if len(body) < _ANSWER.size:
        raise MovementError(f"netlink: a socket in {len(body)} bytes")
    values = _ANSWER.unpack_from(body)
    unread, uid, inode = values[-4], values[-2], values[-1]
    info = _attribute(body[_ANSWER.size :])
    if info is None or len(info) < _TCP_INFO_BYTES.size:
        raise MovementError("netlink: a socket without the count of its bytes")
    sent, received = _TCP_INFO_BYTES.unpack_from(info)
    port = int.from_bytes(values[5], "big")
    return Bytes(inode, uid, port, sent, received, unread, _is_loopback(values[0], values[7]))


def _is_loopback(family: int, address: bytes) -> bool:
    if family == socket.AF_INET6 and not address.startswith(_MAPPED):
        return address == bytes(15) + b"\x01"
    return address[0 if family == socket.AF_INET else 12] == 127


def _attribute(data: bytes) -> bytes | None:
    """The attribute INET_DIAG_INFO in *data*."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        if kind == _INFO:
            return data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return None
