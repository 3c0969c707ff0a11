"""A host as the roles see it, read and checked from the inventory's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from farrier.spec.model import Model

__all__ = ["OPEN_ACCESS", "HostSpec"]

OPEN_ACCESS = "anyone who can reach this host may use its models"
"""What ``open_access`` has to say, word for word, on hosts that serve without API keys."""


@dataclass(frozen=True)
class HostSpec:
    """One host of the fleet: what the roles consume.

    ``address`` is where the other hosts reach it (``address`` of the inventory, else
    ``ssh_hostname``, else its name). ``api_keys`` maps a key's name to the key; it is empty where
    ``open_access`` is set and on hosts without models.
    """

    name: str
    groups: tuple[str, ...] = ()
    address: str = ""
    accelerator: Literal["cuda", "cpu"] = "cuda"
    models: tuple[Model, ...] = ()
    api_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    open_access: bool = False
    nginx_port: int = 8080
    agent_port: int = 9810
