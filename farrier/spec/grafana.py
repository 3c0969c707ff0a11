"""What the inventory says of Grafana: whether there is one, and its administrator's password."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from farrier.spec.check_model import Finding, shown
from farrier.spec.private import PrivateFileError, read_secret

__all__ = ["check_grafana"]

SHORTEST = 12
"""Characters of a password that guards the view of a whole fleet."""
HOLDS = "the password of Grafana's user admin (make one with: openssl rand -hex 16)"


def check_grafana(
    data: Mapping[str, Any], root: Path, secrets: dict[str, str]
) -> Iterator[Finding]:
    """What is wrong with *data*; the password is added to *secrets* as ``password``."""
    wanted, file = data.get("grafana", False), data.get("grafana_admin_password_file")
    if wanted not in {True, False}:
        yield "grafana", f"must be True or False, not {shown(wanted)}"
    if file is None:
        if wanted is True:
            yield "grafana", f"needs grafana_admin_password_file = 'FILE', which holds {HOLDS}"
        return
    if not isinstance(file, str) or not file:
        yield "grafana_admin_password_file", f"must be the path of a file, not {shown(file)}"
        return
    try:
        secret = read_secret(root / Path(file).expanduser(), HOLDS)
    except (PrivateFileError, RuntimeError) as error:
        yield "grafana_admin_password_file", str(error)
        return
    if len(secret) < SHORTEST:
        yield "grafana_admin_password_file", f"{file}: shorter than {SHORTEST} characters; {HOLDS}"
    secrets["password"] = secret
