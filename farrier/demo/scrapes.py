"""What Prometheus says about its targets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from farrier.demo.errors import DemoError
from farrier.demo.web import AnswerError, fetch

__all__ = ["Target", "await_targets", "parse_targets"]


@dataclass(frozen=True)
class Target:
    """One target: *health* is Prometheus' own word, ``up``, ``down`` or ``unknown`` (not yet)."""

    job: str
    instance: str
    health: str
    error: str


class _Active(msgspec.Struct, rename="camel"):
    labels: dict[str, str]
    health: str
    last_error: str = ""


class _Data(msgspec.Struct, rename="camel"):
    active_targets: list[_Active]


class _Answer(msgspec.Struct):
    data: _Data


_decoder = msgspec.json.Decoder(_Answer)


def parse_targets(body: bytes) -> list[Target]:
    """The targets in an answer of ``/api/v1/targets``. Raises :class:`AnswerError`."""
    try:
        active = _decoder.decode(body).data.active_targets
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise AnswerError(f"not Prometheus' targets: {error}") from error
    return sorted(
        (
            Target(
                one.labels.get("job", "?"),
                one.labels.get("instance", "?"),
                one.health,
                one.last_error,
            )
            for one in active
        ),
        key=lambda target: (target.job, target.instance),
    )


def await_targets(
    base: str, report: Callable[[str], None], patience: float = 60.0, every: float = 0.5
) -> list[Target]:
    """The targets of the Prometheus at *base* once all are up; *report* hears who is waited for.

    Raises :class:`DemoError` with the error of each that is not up after *patience* seconds.
    """
    deadline = time.monotonic() + patience
    said = ""
    while True:
        targets: list[Target] = []
        trouble = ""
        try:
            targets = parse_targets(fetch(f"{base}/api/v1/targets?state=active"))
        except AnswerError as error:
            trouble = str(error)
        late = [target for target in targets if target.health != "up"]
        if targets and not late:
            return targets
        waiting = trouble or f"{len(late)} of {len(targets)} targets are not up yet"
        if waiting != said:
            report(waiting)
            said = waiting
        if time.monotonic() > deadline:
            lines = [f"{t.job} {t.instance} is {t.health}: {t.error or 'no error'}" for t in late]
            raise DemoError(
                "; ".join(
                    [trouble or f"Prometheus' targets are not up after {patience:.0f} s", *lines]
                ),
                f"curl -s {base}/api/v1/targets",
            )
        time.sleep(every)
