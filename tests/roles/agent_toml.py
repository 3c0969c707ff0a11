"""Another configuration for a host's agent, for a while: changed under it and read again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.roles.fleet import Fleet

__all__ = ["other_settings"]

_TOML = "/etc/farrier/agent.toml"


@contextmanager
def other_settings(fleet: Fleet, host: str, **settings: object) -> Iterator[None]:
    """*settings* of agent.toml have other values while the block runs: at the top, or a replica's.

    As an operator would do it: the file is edited, and ``systemctl reload`` has it read.
    """
    edits = []
    for name, value in settings.items():
        said = f'"{value}"' if isinstance(value, str) else value
        edits.append(f"if grep -q '^{name} =' {_TOML}")
        edits.append(f"then sed -i 's|^{name} =.*|{name} = {said}|' {_TOML}")
        edits.append(f"else sed -i '1i {name} = {said}' {_TOML}; fi")
    script = "; ".join([f"cp -p {_TOML} {_TOML}.kept", *edits]).replace("; then", "\nthen")
    fleet.root(host, f"{script}; systemctl reload farrier-agent")
    try:
        yield
    finally:
        fleet.root(host, f"mv {_TOML}.kept {_TOML}; systemctl reload farrier-agent")
