"""What the agent and its NVML worker say to one another: frames of msgpack over a stream socket.

A frame is four bytes with the length of its body, the most significant first, and the body. The
agent sends an :class:`Ask`; the worker answers it with :class:`Begun`, a :class:`Read` for each GPU
as soon as it is read, and :class:`Done`; or, from any point on, :class:`Failed`. So what was read
is known before a call hangs.
"""

from __future__ import annotations

import msgspec

from farrier_agent.gpus import Gpu, Gpus, XidEvent

__all__ = [
    "Answer",
    "Answers",
    "Ask",
    "Begun",
    "Done",
    "Event",
    "Failed",
    "Frames",
    "Named",
    "Read",
    "WireError",
    "decode_ask",
    "encode",
]

LONGEST = 4 * 2**20
"""Bytes of a body; a GPU with 36 NVLinks and 100 processes is some 20 kB."""


class WireError(RuntimeError):
    """The other side does not speak as agreed."""


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """Read the GPUs.

    ``order`` are indices of an enumeration of ``of`` GPUs, those to leave out missing. It counts
    only when NVML still enumerates as many; without it all are read, the ``turn``-th one first.
    """

    number: int
    turn: int = 0
    order: tuple[int, ...] | None = None
    of: int | None = None


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun"):
    """NVML is there. ``gpus`` has count and versions.

    ``events_problem`` says why there may be no :class:`Event`, ``events_hang`` that only another
    worker can have them again.
    """

    number: int
    gpus: Gpus
    events_problem: str | None = None
    events_hang: bool = False


class Named(msgspec.Struct, frozen=True, kw_only=True, tag="named"):
    """Who the GPU at ``index`` is, before it is read for the first time."""

    number: int
    index: int
    uuid: str
    pci_bus_id: str | None = None


class Read(msgspec.Struct, frozen=True, kw_only=True, tag="read"):
    """One GPU."""

    number: int
    gpu: Gpu


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """All were read. ``gpus`` has what went wrong, and how many values were invalid so far."""

    number: int
    gpus: Gpus


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """NVML cannot be used, as :class:`~farrier_agent.nvml.errors.NvmlError`; the worker ends."""

    number: int
    kind: str
    words: str
    call: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """NVML told an XID. It comes when it happens, unasked: a hang often follows it."""

    event: XidEvent
    number: int = 0


Answer = Begun | Named | Read | Done | Failed | Event

_ask = msgspec.msgpack.Decoder(Ask)
_encoder = msgspec.msgpack.Encoder()


def encode(message: Ask | Answer) -> bytes:
    """*message* as a frame."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


def decode_ask(body: bytes) -> Ask:
    """Raises WireError."""
    try:
        return _ask.decode(body)
    except msgspec.MsgspecError as error:
        raise WireError(str(error)) from error


class Answers:
    """Decodes answers. Its decoder is made once, where answers are read."""

    def __init__(self) -> None:
        self._decoder = msgspec.msgpack.Decoder(Answer)

    def decode(self, body: bytes) -> Answer:
        """Raises WireError."""
        try:
            answer: Answer = self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise WireError(str(error)) from error
        return answer


class Frames:
    """Bodies out of a stream that comes in pieces."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are whole with *data*. Raises WireError for a length of nonsense."""
        self._bytes += data
        bodies = []
        while len(self._bytes) >= 4:
            length = int.from_bytes(self._bytes[:4], "big")
            if length > LONGEST:
                raise WireError(f"a frame of {length} bytes")
            if len(self._bytes) < 4 + length:
                break
            bodies.append(bytes(self._bytes[4 : 4 + length]))
            del self._bytes[: 4 + length]
        return bodies
