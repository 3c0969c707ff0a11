"""Ansible's playbook of the same end state as a contestant."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from farrier.converge.preflight import MINIMUM_MB, SUPPORTED
from farrier.lab import Lab
from farrier.lab.base import USER
from tests.bench.runs import Run, RunFailedError, timed
from tests.bench.wanted import Wanted

__all__ = ["PLAYBOOK", "Playbook"]

PLAYBOOK = Path(__file__).parent / "ansible"
_RECAP = re.compile(
    r"^(?P<host>\S+)\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)\s+unreachable=(?P<away>\d+)"
    r"\s+failed=(?P<failed>\d+)",
    re.MULTILINE,
)


class Playbook:
    """``ansible-playbook site.yml`` for *wanted* on *lab*; its data go into *scratch* (0700)."""

    def __init__(
        self, lab: Lab, wanted: Mapping[str, Wanted], scratch: Path, leaders: Sequence[int]
    ) -> None:
        self.hosts = sorted(wanted)
        self.leaders = leaders
        self.inventory = scratch / "hosts.json"
        for host in wanted.values():
            for file in host.files:
                rendered = scratch / "rendered" / host.host / file.path.lstrip("/")
                rendered.parent.mkdir(parents=True, exist_ok=True)
                rendered.write_text(file.content)
            for environment in host.environments:
                wheels = scratch / Path(environment.wheels).name
                if not wheels.exists():  # the cache may be cleared meanwhile
                    shutil.copy(environment.wheels, wheels)
        self.inventory.write_text(json.dumps(_inventory(lab, wanted, scratch), indent=1))

    def run(self, *, gather: bool = True, check: bool = True) -> Run:
        """Run the playbook; without *gather* it reads the distribution by its own script."""
        argv: list[str | Path] = [
            *(Path(sys.executable).with_name("ansible-playbook"), "-i", self.inventory),
            *("site.yml", "-e", json.dumps({"gather": gather})),
        ]
        env = {
            "ANSIBLE_CONFIG": str(PLAYBOOK / "ansible.cfg"),
            "ANSIBLE_FORKS": str(len(self.hosts)),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_NOCOLOR": "1",
        }
        run = timed(argv, cwd=PLAYBOOK, env=env, leaders=self.leaders)
        if check:
            self._check(run)
        return run

    def run_unchanged(self, *, gather: bool = True) -> Run:
        """Run the playbook and see that every host reports changed=0."""
        run = self.run(gather=gather)
        if changed := self.changes(run.output):
            raise RunFailedError(f"the playbook changed {changed}\n{run.output[-6000:]}")
        return run

    def changes(self, output: str) -> list[str]:
        """The hosts that report a change."""
        return sorted(match["host"] for match in _RECAP.finditer(output) if match["changed"] != "0")

    def _check(self, run: Run) -> None:
        recap = {match["host"]: match for match in _RECAP.finditer(run.output)}
        bad = {name for name, line in recap.items() if line["away"] != "0" or line["failed"] != "0"}
        if bad or sorted(recap) != self.hosts:
            raise RunFailedError(f"recap of {sorted(recap)}, failed {bad}\n{run.output[-4000:]}")


def _inventory(lab: Lab, wanted: Mapping[str, Wanted], scratch: Path) -> dict[str, object]:
    addresses = {host.name: str(host.address) for host in lab.hosts}
    hosts: dict[str, object] = {}
    groups: dict[str, dict[str, object]] = {"gpu": {}, "monitor": {}, "vllm": {}}
    for host in wanted.values():
        environments = {one.thing: one for one in host.environments}
        hosts[host.host] = {
            "ansible_host": addresses[host.host],
            "ports": host.ports,
            "models": host.models,
            "engine_users": host.users,
            "rendered": str(scratch / "rendered" / host.host),
        } | {
            f"{thing}_{what}": value
            for thing, one in environments.items()
            for what, value in (
                ("path", one.path),
                ("wheels", str(scratch / Path(one.wheels).name)),
            )
        }
        for group in (*host.groups, *environments):
            if group in groups:
                groups[group][host.host] = {}
    ssh = f"-o UserKnownHostsFile={lab.known_hosts} -o StrictHostKeyChecking=yes"
    return {
        "all": {
            "hosts": hosts,
            "vars": {
                "ansible_user": USER,
                "ansible_ssh_private_key_file": str(lab.user_key),
                "ansible_ssh_common_args": ssh,
                "supported_systems": sorted(SUPPORTED),
                "minimum_mb": min(MINIMUM_MB.values()),
            },
            "children": {group: {"hosts": members} for group, members in groups.items()},
        }
    }
