"""What is asked of an endpoint: a value that is checked where it is made."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "Plan", "PlanError"]

KINDS = ("stream", "post", "fresh", "upload", "slow", "vanish")
"""Streams, short POSTs in a loop, the same on fresh connections, slow uploads, streams that are
read slowly, and streams whose client goes away in the middle."""

FEWEST_BYTES = 512
"""Of an upload: its JSON has to fit."""


class PlanError(ValueError):
    """A plan that nobody can carry out; the message names the field."""


@dataclass(frozen=True)
class Plan:
    """How much of what, for how long. Every kind is off at 0.

    ``models`` are asked for in turn; without any, the first that ``/v1/models`` lists. New requests
    begin for ``seconds`` and at most ``requests`` times; those that run then have ``patience``
    seconds to end (None: three times the longest stream, and half a minute).

    ``streams`` clients ask for one stream after another, each of a length drawn from
    ``stream_seconds``; how many tokens that is follows from ``seconds_per_token``, which is learned
    from the streams before where it is None, and never more than ``most_tokens``. ``posts`` clients
    send short POSTs (``post_tokens``) with on average ``pause`` seconds between two. ``fresh``
    short POSTs a second have a connection of their own. ``uploads`` clients send bodies of
    ``upload_bytes`` within ``upload_seconds``, every other one chunked. ``slow`` clients read their
    streams at ``slow_bytes`` a second; ``vanish`` clients close the connection of theirs in the
    middle. Every client keeps its connection from one request to the next (with ``http2`` 25 share
    one), unless ``keep_alive`` is off.

    ``ignore_eos``: the engine is told to, and obeys (vLLM, SGLang, the stand-in), so that an answer
    has exactly as many tokens as were asked for. ``silence`` is for how many seconds nothing may
    come before a client gives up, ``connect_seconds`` how long a connection may take,
    ``after_refusal`` the pause of a client that was not served. ``server_header`` is the answer's
    header that says which server it is from.
    """

    models: tuple[str, ...] = ()
    seconds: float = 60.0
    requests: int = 1_000_000
    patience: float | None = None
    streams: int = 40
    stream_seconds: tuple[float, float] = (1.0, 60.0)
    seconds_per_token: float | None = None
    most_tokens: int = 4096
    posts: int = 40
    pause: float = 0.5
    post_tokens: int = 4
    fresh: float = 10.0
    uploads: int = 5
    upload_bytes: int = 65_536
    upload_seconds: float = 4.0
    slow: int = 0
    slow_bytes: int = 4096
    vanish: int = 0
    prompt_bytes: int = 0
    keep_alive: bool = True
    http2: bool = False
    ignore_eos: bool = True
    silence: float = 120.0
    connect_seconds: float = 5.0
    after_refusal: float = 1.0
    ramp: float = 0.03
    server_header: str = "X-Farrier-Server"
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("streams", "posts", "fresh", "uploads", "slow", "vanish", "pause", "ramp"):
            if getattr(self, name) < 0:
                raise PlanError(f"{name} is negative")
        for name in ("seconds", "requests", "most_tokens", "post_tokens", "upload_seconds"):
            if getattr(self, name) <= 0:
                raise PlanError(f"{name} has to be more than 0")
        for name in ("slow_bytes", "silence", "connect_seconds", "after_refusal"):
            if getattr(self, name) <= 0:
                raise PlanError(f"{name} has to be more than 0")
        shortest, longest = self.stream_seconds
        if not 0 < shortest <= longest:
            raise PlanError("stream_seconds are two lengths, the shorter one first")
        if self.seconds_per_token is not None and self.seconds_per_token <= 0:
            raise PlanError("seconds_per_token has to be more than 0")
        if self.upload_bytes < FEWEST_BYTES:
            raise PlanError(f"upload_bytes has to be at least {FEWEST_BYTES}")
        if not self.clients and not self.fresh:
            raise PlanError("nobody asks for anything: every kind is 0")

    @property
    def clients(self) -> int:
        """How many clients ask in a loop."""
        return self.streams + self.posts + self.uploads + self.slow + self.vanish

    @property
    def at_the_end(self) -> float:
        """Seconds that running requests have after the last one began."""
        if self.patience is not None:
            return self.patience
        return 3 * self.stream_seconds[1] + 30
