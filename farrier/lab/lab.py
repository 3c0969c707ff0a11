"""A lab: real hosts with systemd, sshd and apt on the operator's machine, up and down as one."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import TypeVar

from farrier.lab import machines, network
from farrier.lab.base import base_tree
from farrier.lab.commands import require_root_and_tools, run
from farrier.lab.definitions import HostDefinition, LabDefinition, definition
from farrier.lab.disks import is_mounted, remove_tree
from farrier.lab.errors import LabError
from farrier.lab.hosts import Host, prepare_disk, recorded_base, release_disk
from farrier.lab.interrupts import held_back
from farrier.lab.keys import make_keys
from farrier.lab.login import HostState, Login
from farrier.lab.state import STATE, LabFiles, locked, write_private
from farrier.lab.surroundings import Surroundings, surroundings

__all__ = ["Lab"]

T = TypeVar("T")
Report = Callable[[str], None]


def _silent(_: str) -> None:
    pass


class Lab:
    """One lab by its definition; every method reads the present state anew.

    Methods that change something need root and raise :class:`LabError`. *report* hears one line
    per phase, with its seconds.
    """

    def __init__(self, of: LabDefinition, report: Report = _silent) -> None:
        self.definition = of
        self.files = LabFiles(of.name)
        self.report = report
        self._login = Login(self.files.ssh_config)
        self._interrupted = threading.Event()

    @classmethod
    def open(cls, name: str, report: Report = _silent) -> Lab:
        """The lab called *name*, up or not. Raises :class:`LabError` when none is defined."""
        return cls(definition(name), report)

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.definition.name

    @property
    def network(self) -> IPv4Network:
        """The lab's network; the operator has its first address."""
        return self.definition.network

    @property
    def hosts(self) -> list[Host]:
        """The hosts that were brought up and not taken down, in the order of the definition."""
        names = self.files.hosts_up()
        return [self._host(host) for host in self.definition.hosts if host.name in names]

    @property
    def ssh_config(self) -> Path:
        """For ``ssh -F``; knows every host by name and address, checks strictly."""
        return self.files.ssh_config

    @property
    def known_hosts(self) -> Path:
        """The hosts' keys, as made before their first boot."""
        return self.files.known_hosts

    @property
    def user_key(self) -> Path:
        """The private SSH key of the hosts' sudo user ``farrier``."""
        return self.files.user_key

    @property
    def keys_file(self) -> Path:
        """TOML with the table ``keys``: API keys of the lab's clients by name, mode 0600."""
        return self.files.api_keys

    @property
    def ca(self) -> Path:
        """The certificate authority that clients of the lab's gateways have to know, PEM."""
        return self.files.ca

    @property
    def gateway_certificate(self) -> Path:
        """The gateways' certificate with its key, PEM, mode 0600."""
        return self.files.gateway_certificate

    def up(self, hosts: Sequence[str] | None = None) -> None:
        """Bring up *hosts*, or all: make what is missing, repair what is broken, verify the rest.

        A host that runs is left running. One that was killed or powered off boots its own disk
        again. Ends when every host is booted and answers over SSH.
        """
        require_root_and_tools()
        wanted = self.definition.select(list(hosts) if hosts is not None else None)
        started = time.monotonic()
        self._interrupted.clear()
        with locked(self.files.lock, self.report):
            with self._phase("base trees"):
                bases = self._bases(wanted)
            with self._phase("keys and network"):
                STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
                self.files.directory.mkdir(mode=0o700, exist_ok=True)
                self.files.hosts.mkdir(exist_ok=True)
                self._record({*self.files.hosts_up(), *(host.name for host in wanted)})
                make_keys(self.definition, self.files)
                network.raise_network(self.definition)
                around = surroundings()
            with self._phase("disks and machines"):
                self._each(wanted, lambda host: self._boot(host, bases[host.suite], around))
            with self._phase("booted, SSH answers"):
                states = self._each(wanted, self._await)
        for state in states:
            if state.system != "running":
                self.report(
                    f"{state.name} is {state.system} {' '.join(state.failed_units)}".rstrip()
                )
        self.report(f"lab {self.name} is up: {time.monotonic() - started:.1f} s")

    def down(self, keep: bool = False) -> None:
        """Take the lab down: no process, mount, interface, rule or file of it is left.

        With *keep* the hosts shut down in order, and their disks and keys stay for the next
        :meth:`up`.
        """
        require_root_and_tools()
        started = time.monotonic()
        end = machines.power_off if keep else machines.cut_power
        with locked(self.files.lock, self.report):
            hosts = self.definition.hosts
            self._each(
                hosts, lambda host: end(self.definition, host.name, self.files.host(host.name))
            )
            for host in hosts:
                release_disk(self.files, host.name)
            network.lower(self.definition)
            if not keep:
                remove_tree(self.files.directory)
            elif self.files.directory.exists():
                self._record(set())
        with suppress(OSError):  # another lab is there
            STATE.rmdir()
        self.report(f"lab {self.name} is down: {time.monotonic() - started:.1f} s")

    def status(self) -> list[HostState]:
        """The state of every host of the definition, in its order; waits for no boot."""
        require_root_and_tools()
        return self._each(self.definition.hosts, self._state)

    def ssh(
        self,
        host: str,
        cmd: str,
        input: str | None = None,  # noqa: A002 - subprocess' own word
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run the shell command *cmd* on *host* as its sudo user.

        Raises :class:`subprocess.CalledProcessError` on a status other than 0 if *check*.
        """
        self.definition.select([host])
        return self._login.run(host, cmd, input=input, check=check)

    def reboot(self, host: str, patience: float = 120) -> None:
        """Reboot *host* in order; ends when it answers over SSH with another boot_id."""
        self.definition.select([host])
        before = self._login.boot_id(host)
        self._login.run(host, "sudo systemctl reboot", check=False)
        deadline = time.monotonic() + patience
        while self._login.boot_id(host, check=False) in (None, before):
            if time.monotonic() > deadline:
                raise LabError(f"{host} did not come back within {patience:.0f} s of its reboot")
            time.sleep(0.2)

    def kill(self, host: str) -> None:
        """Cut *host*'s power; :meth:`start` or :meth:`up` boots its disk again."""
        machines.cut_power(self.definition, self._one(host).name, self.files.host(host))

    def start(self, host: str) -> None:
        """Boot *host*, which was killed or powered off, and wait for it."""
        self.up([host])

    def link(self, host: str, up: bool) -> None:
        """Plug *host*'s network cable in, or pull it."""
        veth = self.definition.veth(self._one(host).name)
        run(["ip", "link", "set", veth, "up" if up else "down"])

    def _one(self, name: str) -> HostDefinition:
        return self.definition.select([name])[0]

    def _host(self, host: HostDefinition) -> Host:
        root = self.files.host(host.name).merged
        return Host(host.name, self.definition.address(host), host.suite, host.groups, root)

    def _record(self, names: set[str]) -> None:
        hosts = {
            host.name: {
                "address": str(self.definition.address(host)),
                "suite": host.suite,
                "groups": host.groups,
            }
            for host in self.definition.hosts
            if host.name in names
        }
        lab = {"name": self.name, "network": str(self.network), "hosts": hosts}
        write_private(self.files.lab, json.dumps(lab, indent=2) + "\n")

    def _bases(self, hosts: Iterable[HostDefinition]) -> dict[str, Path]:
        suites = sorted({host.suite for host in hosts})
        with ThreadPoolExecutor() as pool:
            return dict(
                zip(suites, pool.map(lambda s: base_tree(s, self.report), suites), strict=True)
            )

    def _boot(self, host: HostDefinition, base: Path, around: Surroundings) -> None:
        disk = self.files.host(host.name)
        whole = is_mounted(disk) and recorded_base(self.definition, host, self.files)
        if whole and machines.supervised(disk):
            return
        machines.cut_power(self.definition, host.name, disk)
        release_disk(self.files, host.name)
        prepare_disk(self.definition, host, self.files, base, around)
        machines.start(self.definition, host, disk, around.directories)

    def _await(self, host: HostDefinition, patience: float = 90) -> HostState:
        """The state of *host* once it has booted. Raises :class:`LabError` when it does not.

        A host that answers but has not ended its boot after *patience* seconds is good enough.
        """
        disk = self.files.host(host.name)
        began = time.monotonic()
        while True:
            state = self._state(host, patience=20)
            waited = time.monotonic() - began
            if state.system in {"running", "degraded"} or (state.ssh and waited > patience):
                return state
            # Between two boots only the supervisor is there; two seconds are its own start.
            alive = waited < 2 or bool(machines.outside(disk)["supervisor"])
            refused = "verification failed" in (state.ssh_error or "")
            if not alive or refused or waited > patience:
                raise LabError(self._failed_boot(host.name, state, alive))
            if self._interrupted.wait(0.1):
                raise LabError(f"{host.name}: no longer waited for")

    def _failed_boot(self, host: str, state: HostState, alive: bool) -> str:
        console = self.files.host(host).console
        log = console.read_text(errors="replace").strip()[-1500:] if console.exists() else ""
        why = state.ssh_error or ("SSH does not answer" if alive else "its machine ended")
        return (
            f"lab {self.name}: {host} is not up: {why}\n{log}\n  see: {console}\n"
            f"  start over: farrier lab down --name {self.name}"
        )

    def _state(self, host: HostDefinition, patience: int = 0) -> HostState:
        booted = machines.supervised(self.files.host(host.name))
        address = self.definition.address(host)
        state = HostState(host.name, address, host.suite, host.groups, booted)
        return self._login.ask(state, patience) if booted else state

    def _each(self, hosts: Sequence[HostDefinition], act: Callable[[HostDefinition], T]) -> list[T]:
        """*act* on all *hosts* at once; the first failure, or Ctrl-C, ends every wait."""
        workers = ThreadPoolExecutor(max_workers=max(len(hosts), 1))
        with held_back(self._interrupted), workers as pool:
            try:
                return list(pool.map(act, hosts))
            except BaseException:
                self._interrupted.set()
                raise

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.report(f"{time.monotonic() - began:6.1f} s  {name}")
