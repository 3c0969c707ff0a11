"""A replica's Ray: the token that its nodes share, and where they keep what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farrier.spec.private import PrivateFileError, read_secret
from farrier.spec.values import shown

__all__ = ["read_ray_token", "session", "tells"]

SHORTEST = 32
"""Characters: who has it runs code on the hosts."""
HOLDS = "the token of the fleet's Ray (make one with: openssl rand -hex 32)"


def read_ray_token(data: Mapping[str, Any], root: Path) -> str:
    """The token; empty where *data* names no file. Raises :class:`ValueError` in words."""
    file = data.get("ray_token_file")
    if file is None:
        return ""
    if not isinstance(file, str) or not file:
        raise ValueError(f"must be the path of a file, not {shown(file)}")
    try:
        token = read_secret(root / Path(file).expanduser(), HOLDS)
    except (PrivateFileError, RuntimeError) as error:
        raise ValueError(str(error)) from None
    if len(token) < SHORTEST:
        raise ValueError(f"{file}: shorter than {SHORTEST} characters; {HOLDS}")
    return token


def session(name: str) -> str:
    """Where the node *name* has its sockets: a path of 107 bytes has to hold 62 of Ray's own."""
    return f"/run/farrier/ray-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def tells(name: str) -> str:
    """The file in which the head's node, *name*, tells how the cluster is."""
    return f"{session(name)}/cluster.json"
