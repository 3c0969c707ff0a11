"""From one kind of access to another, and back, with requests on their way."""

from __future__ import annotations

import threading

from tests.nginx.site import ALICE, GATEWAY, Site

KEYS = f"""
[keys.alice]
key = "{ALICE}"
streams = 64
requests_per_minute = 100000
"""
TINY = "/replicas/tiny/v1/chat/completions"
SECRETS = "ls /etc/nginx/farrier | grep keys || test $? = 1"


def test_a_second_converge_changes_nothing(site: Site) -> None:
    site.converge(KEYS, nginx_clients="keys", nginx_gateways=[site.here])
    assert site.converge(KEYS, nginx_clients="keys", nginx_gateways=[site.here]) == []
    site.converge(nginx_clients="gateways", nginx_gateways=[site.here])
    assert site.converge(nginx_clients="gateways", nginx_gateways=[site.here]) == []


def test_a_host_behind_gateways_keeps_no_key_and_no_hash(site: Site) -> None:
    site.converge(KEYS, nginx_clients="keys", nginx_gateways=[site.here])
    assert site.root(SECRETS) == "keys.js\nkeys.map\n"
    site.converge(KEYS, nginx_clients="gateways", nginx_gateways=[site.here])
    assert site.root(SECRETS) == ""


def test_a_change_of_keys_and_of_who_is_let_in_loses_no_request(site: Site) -> None:
    """Each request on a connection of its own, as a gateway sends it."""
    site.converge(KEYS, nginx_clients="keys", nginx_gateways=[site.here])
    statuses: list[int] = []
    end = threading.Event()

    def ask() -> None:
        headers = {**GATEWAY, "Authorization": f"Bearer {ALICE}", "X-Hold": "0.05"}
        while not end.is_set():
            statuses.append(site.ask(TINY, headers).status)

    clients = [threading.Thread(target=ask) for _ in range(8)]
    for client in clients:
        client.start()
    try:
        more = f'{KEYS}[keys.bob]\nsha256 = "{"b" * 64}"\nmodels = ["tiny"]\n'
        assert site.converge(more, nginx_clients="keys", nginx_gateways=[site.here])
        assert site.converge(nginx_clients="gateways", nginx_gateways=[site.here])
    finally:
        end.set()
        for client in clients:
            client.join()
    assert len(statuses) > 50
    assert set(statuses) == {200}
