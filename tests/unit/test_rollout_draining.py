"""What was lost with a host that went down while it drained. No host."""

from __future__ import annotations

import pytest

from farrier.rollout.draining import lost_in_drain
from farrier.rollout.errors import CutOffError, FencedError
from farrier.rollout.ledger import HostRecord, ReplicaRecord
from farrier.rollout.seen import HostSeen


@pytest.mark.parametrize(
    ("boot", "heard", "lost"),
    [
        ("boot 2", 3, {"tiny": 3}),
        # it was only out of reach
        ("boot 1", 3, {}),
        (None, 3, {}),
        # drained to its end, or not begun: a reboot is meant
        ("boot 2", None, {}),
        ("boot 2", 0, {}),
    ],
)
def test_lost_is_what_was_in_flight_when_it_went_down(
    boot: str | None, heard: int | None, lost: dict[str, int]
) -> None:
    record = HostRecord(
        host="gpu01",
        batch=0,
        boot_before="boot 1",
        replicas=[ReplicaRecord(name="tiny", model="tiny", heard=heard)],
    )
    assert lost_in_drain(record, HostSeen(host="gpu01", boot_id=boot, replicas=())) == lost


def test_a_host_out_of_reach_failed_and_nobody_refused() -> None:
    assert (CutOffError.code, FencedError.code) == (1, 3)
