"""Gateways that the inventory knows by name: the host finds their addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.nginx.site import GATEWAY, Site

NAME = "gw-of-the-test"
DATA: dict[str, Any] = {
    "nginx_clients": "gateways",
    "nginx_gateways": ["192.0.2.1"],
    "gateway_names": [NAME],
}


@pytest.fixture
def named(site: Site) -> Iterator[Site]:
    """A host that knows the name of no gateway yet."""
    _forget(site)
    site.root("rm -f /etc/nginx/farrier/gateways.geo")
    yield site
    _forget(site)
    site.converge(nginx_clients="gateways", nginx_gateways=[site.here])


def _forget(site: Site) -> None:
    site.root(f"sed '/{NAME}/d' /etc/hosts > /run/hosts && cat /run/hosts > /etc/hosts")


def _know(site: Site, address: str) -> None:
    _forget(site)
    site.root(f"echo '{address} {NAME}' >> /etc/hosts")


def test_a_name_that_the_host_does_not_know_is_told_and_nothing_changes(named: Site) -> None:
    named.converge(nginx_clients="gateways", nginx_gateways=[named.here])
    said = named.refused(**DATA)
    assert f"gateway {NAME}: this host cannot find its address" in said
    assert "address = 'IP'" in said
    assert named.ask(headers=GATEWAY).status == 200  # nginx runs as it did


def test_a_gateway_is_let_in_by_its_name_and_follows_it(named: Site) -> None:
    _know(named, named.here)
    named.converge(**DATA)
    assert named.ask(headers=GATEWAY).status == 200
    assert named.ask_from_the_host(headers=GATEWAY) == 403
    _know(named, "127.0.0.1")
    named.root("systemctl reload nginx")
    assert named.ask(headers=GATEWAY).status == 403
    assert named.ask_from_the_host(headers=GATEWAY) == 200


def test_a_name_that_is_not_found_for_once_keeps_its_address(named: Site) -> None:
    _know(named, named.here)
    named.converge(**DATA)
    _forget(named)
    for verb in ("reload", "restart"):
        named.root(f"systemctl {verb} nginx")
        assert named.ask(headers=GATEWAY).status == 200
