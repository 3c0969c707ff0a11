"""The lab's network in a network namespace of its own: nothing here touches this machine's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def in_namespace(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run the Python *script* with an empty network and a lab state of its own."""
    return subprocess.run(
        ["unshare", "--net", sys.executable, "-c", script],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "FARRIER_LAB_STATE": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


FORWARDING = """
import json, subprocess
from pathlib import Path
from farrier.lab import network
from farrier.lab.definitions import LABS
demo, test = LABS["demo"], LABS["test"]
seen = []
def look():
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    forwarding = network.IP_FORWARD.read_text().strip()
    seen.append([forwarding, links.count("fr-"), tables.count("farrier_")])
network.IP_FORWARD.write_text("{found}")
network.raise_network(demo); look()
network.raise_network(test); network.raise_network(test); look()
network.lower(demo); look()
network.lower(test); look()
network.lower(test); look()
print(json.dumps(seen))
"""


@pytest.mark.parametrize("found", ["0", "1"])
def test_forwarding_is_what_it_was_once_the_last_lab_has_gone(tmp_path: Path, found: str) -> None:
    done = in_namespace(tmp_path, FORWARDING.replace("{found}", found))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        ["1", 1, 1],
        ["1", 2, 2],
        ["1", 1, 1],
        [found, 0, 0],
        [found, 0, 0],
    ]
    assert list((tmp_path / "state").iterdir()) == []


RULES = """
import subprocess, sys
from farrier.lab import LabError, network
from farrier.lab.definitions import LABS
subprocess.run(["nft", "-f", "-"], input={rules!r}, text=True, check=True)
try:
    network.raise_network(LABS["brief"])
except LabError as error:
    sys.exit(str(error))
"""

DOCKER = """
table ip filter {
    chain DOCKER-USER { EXTRA counter return; }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        jump DOCKER-USER
    }
}
"""

HOUSE_RULES = """
table inet firewall {
    chain forward { type filter hook forward priority filter; policy drop; EXTRA }
}
"""


@pytest.mark.parametrize(
    ("rules", "fix"),
    [
        (
            DOCKER,
            "run: iptables -I DOCKER-USER -i fr-brief -j ACCEPT && "
            "iptables -I DOCKER-USER -o fr-brief -j ACCEPT",
        ),
        (
            HOUSE_RULES,
            "run: nft insert rule inet firewall forward iifname fr-brief accept && "
            "nft insert rule inet firewall forward oifname fr-brief accept",
        ),
    ],
    ids=["docker", "own"],
)
def test_a_firewall_that_drops_is_named_with_the_command(
    tmp_path: Path, rules: str, fix: str
) -> None:
    done = in_namespace(tmp_path, RULES.format(rules=rules.replace("EXTRA", "")))
    assert done.returncode == 1
    assert "policy drop" in done.stderr
    assert fix in done.stderr
    permission = 'iifname "fr-brief" accept; oifname "fr-brief" accept;'
    allowed = in_namespace(tmp_path, RULES.format(rules=rules.replace("EXTRA", permission)))
    assert (allowed.returncode, allowed.stderr) == (0, "")


def test_a_firewall_that_accepts_is_no_matter(tmp_path: Path) -> None:
    rules = HOUSE_RULES.replace("policy drop", "policy accept").replace("EXTRA", "")
    done = in_namespace(tmp_path, RULES.format(rules=rules))
    assert (done.returncode, done.stderr) == (0, "")
