from ipaddress import IPv4Network
from itertools import combinations

import pytest

from farrier.lab import LabError
from farrier.lab.definitions import LABS, HostDefinition, LabDefinition, definition


def test_labs_share_no_network_and_no_name_on_the_operators_machine() -> None:
    for one, other in combinations(LABS.values(), 2):
        assert not one.network.overlaps(other.network)
        assert one.bridge != other.bridge
        assert one.nft_table != other.nft_table
        machines = {one.machine(host.name) for host in one.hosts}
        assert machines.isdisjoint(other.machine(host.name) for host in other.hosts)


def test_the_demo_labs_addresses_are_the_documented_ones() -> None:
    demo = definition("demo")
    assert {host.name: str(demo.address(host)) for host in demo.hosts} == {
        "gw01": "198.18.0.5",
        "gpu01": "198.18.0.11",
        "gpu02": "198.18.0.12",
        "gpu03": "198.18.0.13",
    }
    assert demo.hosts[0].groups == ("gateway", "monitor")


def test_a_name_that_makes_too_long_an_interface_is_refused() -> None:
    network = IPv4Network("198.18.9.0/24")
    with pytest.raises(ValueError, match="vb-toolong-gpu01 is longer than 15"):
        LabDefinition("toolong", network, (HostDefinition("gpu01", 11, "bookworm", ("gpu",)),))
    with pytest.raises(ValueError, match="only a-z and 0-9"):
        LabDefinition("a b", network, ())


def test_unknown_labs_and_hosts_are_answered_with_those_there_are() -> None:
    with pytest.raises(LabError, match="no lab is called 'prod'; there are demo, test, "):
        definition("prod")
    with pytest.raises(LabError, match="lab brief has no host gpu07, gpu08; it has gpu01"):
        definition("brief").select(["gpu08", "gpu01", "gpu07"])


def test_selection_keeps_the_labs_order() -> None:
    chosen = definition("demo").select(["gpu02", "gw01"])
    assert [host.name for host in chosen] == ["gw01", "gpu02"]
