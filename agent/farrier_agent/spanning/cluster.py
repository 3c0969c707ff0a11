"""What the head's node tells of a replica's Ray: how many nodes live, and what is lacking.

The node writes its file every two seconds (roles/vllm/ray_node.py), and systemd removes it with the
node. A file that is not there, or is old, is a cluster without nodes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

__all__ = ["NO_CLUSTER", "STALE", "Cluster", "read"]

STALE = 20.0
"""Seconds; an answer of Ray may take five of them."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """``nodes`` that live, of ``wanted``; ``lacks`` says what is missing, a sentence each.

    ``at`` is in seconds since the epoch.
    """

    at: float
    nodes: int
    wanted: int
    lacks: list[str]


NO_CLUSTER = Cluster(at=0.0, nodes=0, wanted=0, lacks=["this host's node does not run"])

_decoder = msgspec.json.Decoder(Cluster)


def read(path: Path, now: float) -> Cluster:
    """What *path* says at the time *now*; :data:`NO_CLUSTER` where it says nothing of it."""
    try:
        told = _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return NO_CLUSTER
    return told if abs(now - told.at) < STALE else NO_CLUSTER
