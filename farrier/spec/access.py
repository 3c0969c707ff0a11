"""Who may use the models of a host, or of the fleet through a gateway: keys, or nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from farrier.spec.check_model import Finding, did_you_mean, shown
from farrier.spec.keys import ApiKey, KeysError, read_keys

__all__ = ["NGINX_CLIENTS", "OPEN_ACCESS", "check_access"]

OPEN_ACCESS = "anyone who can reach this host may use its models"
"""What ``open_access`` has to say, word for word, on hosts that serve without API keys."""
NGINX_CLIENTS = ("", "gateways", "keys")
"""Who may ask a host's nginx; "" is ``gateways`` where the fleet has any, else ``keys``."""


def check_access(
    data: Mapping[str, Any], whose: str, root: Path, keys: dict[str, ApiKey]
) -> Iterator[Finding]:
    """What is wrong with a host's access; the keys of its ``api_keys_file`` are put into *keys*.

    *whose* models there are to be asked for (``this host's``); empty where there are none.
    """
    file, sentence = data.get("api_keys_file"), data.get("open_access")
    if sentence is not None and sentence != OPEN_ACCESS:
        yield "open_access", f"has to say in words, exactly: open_access = {OPEN_ACCESS!r}"
    if file is not None and sentence is not None:
        yield "api_keys_file", "either keys or open_access, not both: leave one out"
    elif file is None and sentence is None and whose:
        yield (
            "api_keys_file",
            f"missing: who may use {whose} models? Write api_keys_file = 'FILE' with keys "
            f"of your clients, or in words: open_access = {OPEN_ACCESS!r}",
        )
    clients = data.get("nginx_clients", "")
    if clients not in NGINX_CLIENTS:
        hint = did_you_mean(clients, NGINX_CLIENTS)
        yield "nginx_clients", f"{shown(clients)} is neither 'gateways' nor 'keys'{hint}"
    yield from _gateways(data)
    if file is None:
        return
    if not isinstance(file, str) or not file:
        yield "api_keys_file", f"must be the path of a file on this machine, not {shown(file)}"
        return
    try:
        keys |= read_keys(root / Path(file).expanduser())
    except (KeysError, RuntimeError) as error:  # RuntimeError: ~ of a user that is not there
        yield "api_keys_file", str(error)


def _gateways(data: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with ``nginx_gateways``: what is no address there lets nobody in, or all."""
    given = data.get("nginx_gateways", [])
    if not isinstance(given, list | tuple):
        yield "nginx_gateways", f"must be a list of IP addresses or networks, not {shown(given)}"
        return
    for index, one in enumerate(given):
        try:
            good = isinstance(one, str) and ip_network(one).prefixlen > 0
        except ValueError:
            good = False
        if not good:
            yield (
                f"nginx_gateways[{index}]",
                f"{shown(one)} is no IP address and no network such as 198.51.100.0/28",
            )
