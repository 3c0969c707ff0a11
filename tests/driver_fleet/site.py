"""Three hosts with eight GPUs each that serve *tiny*, and whose driver really changes.

Stand-ins are the kernel's half of the driver (tests/fakes/nvidia_module), NVML (tests/fakes/nvml),
NVIDIA's packages and their repository (tests/fakes/nvidia_repo), and the engines. Real are apt,
dpkg, DKMS, modinfo, boots, systemd, nginx, HAProxy, the roles, the agent and ``farrier``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.fakes.engine.packing import packed
from tests.fakes.nvidia_module import OPT, RUN, files, roots
from tests.fakes.nvml import build as fake_nvml
from tests.fleet.site import STOP_SECONDS, Site, account
from tests.roles.fleet import until

if TYPE_CHECKING:
    from farrier.lab import Lab
    from tests.fakes.nvidia_repo.running import StandIn
    from tests.roles.converging import Converge

__all__ = [
    "GPUS",
    "NEW",
    "OLD",
    "DriverSite",
    "boot",
    "comes_with",
    "fit",
    "installed",
    "loaded",
    "of_standin",
    "of_standin_alone",
]

OLD, NEW = "580.95.05", "580.105.08"
GPUS = 8
SWITCHES = 4
NVML = "/opt/fake-nvml/libnvidia-ml.so.1"
_STATE = "/etc/fake-nvml.state"
_SOURCES = "/etc/apt/sources.list"

TINY = {
    "name": "tiny",
    "engine": "custom",
    "gpus": list(range(GPUS)),
    "port": 8101,
    "start_timeout": 120,
    "command": [
        *(f"{OPT}/engine", "--host", "{host}", "--port", "{port}", "--model", "{model}"),
        *("--account", account("tiny"), "--start-delay", "1"),
    ],
}


def fit(
    site: Site,
    host: str,
    driver: Mapping[str, Any],
    *,
    reboots: bool = True,
    switches: int = SWITCHES,
) -> None:
    """Make *host* one with eight GPUs that serves *tiny*; *driver* is the inventory's data of it.

    *reboots*: its kernel does not let go of a loaded module, so that another one takes a boot.
    """
    library = fake_nvml.build(site.converge.directory / f"nvml-{host}").read_bytes()
    site.put(host, "/opt/standin/standin.py", packed(), mode="755")
    site.put(host, NVML, library, mode="755")
    for path, (content, mode) in files(GPUS, switches).items():
        site.put(host, path, content, mode)
    site.root(
        host,
        f"[ ! -e {_SOURCES}.away ] || mv {_SOURCES}.away {_SOURCES};"
        f" rm -rf {OPT}/when; mkdir {OPT}/when; ln -sfn {RUN}/state {_STATE};"
        f" {'touch' if reboots else 'rm -f'} {OPT}/in-use;"
        " systemctl daemon-reload; systemctl enable -q fake-driver.service;"
        " systemctl restart fake-driver.service",
    )
    site.converge.models[host] = [TINY]
    site.converge.data[host] = {
        "accelerator": "cuda",
        "agent_tick": 1.0,
        "agent_nvml_library": NVML,
        "engine_stop_timeout": STOP_SECONDS,
        "api_keys_file": str(site.keys_file),
        "roots": roots(),
        **driver,
    }


def of_standin(standin: StandIn) -> dict[str, Any]:
    """The inventory's data that bring driver :data:`OLD` from *standin*."""
    return {"nvidia_driver_version": OLD, **standin.repository()}


def of_standin_alone(site: Site, host: str) -> None:
    """From here on *host*'s apt knows the driver's source only: all that it needs besides is there.

    Debian's 60,000 packages are weighed against each pin of each rehearsal: 40 s of each change on
    a machine that has other things to do.
    """
    site.root(
        host,
        f"[ ! -e {_SOURCES} ] || mv {_SOURCES} {_SOURCES}.away;"
        " rm -f /var/lib/apt/lists/*debian.org*",
    )


def installed(site: Site, host: str) -> str:
    """The upstream version of the driver's packages, by dpkg; several where they differ."""
    listing = site.ssh(
        host,
        "dpkg-query -W -f '${db:Status-Status} ${Version}\\n' nvidia-kernel-open-dkms"
        " nvidia-driver-cuda nvidia-fabricmanager libcuda1",
        check=False,
    )
    versions = {line.removeprefix("installed ") for line in listing.splitlines()}
    return " ".join(sorted(version.partition("-")[0] for version in versions))


def loaded(site: Site, host: str) -> str:
    """The version of the driver that is loaded; "" if none is."""
    return site.ssh(host, f"cat {RUN}/loaded 2>/dev/null", check=False).strip()


def boot(site: Site, host: str) -> str:
    """The boot that *host* is in."""
    return site.ssh(host, "cat /proc/sys/kernel/random/boot_id").strip()


def comes_with(site: Site, host: str, version: str, *lines: str) -> None:
    """Driver *version* brings *lines* with it when *host* loads it; none: it is as any other."""
    text = "".join(f"{line}\n" for line in lines)
    site.put(host, f"{OPT}/when/{version}", text.encode())


class DriverSite(Site):
    """The hosts of a lab with two gateways; gpu01 and gpu02 are Debian 12, gpu03 is Debian 13.

    The kernel of gpu03 lets go of its module; those of the others do not.
    """

    def __init__(self, lab: Lab, converge: Converge, standin: StandIn) -> None:
        super().__init__(lab, converge)
        self.standin = standin

    def prepare(self) -> None:
        """Write the inventory, and bring to the hosts what it names and no role installs."""
        super().prepare()
        for host in self.gpus:
            fit(self, host, of_standin(self.standin), reboots=host != "gpu03")

    def settle(self) -> None:
        """Return when every replica serves and every gateway knows it."""
        for host in self.gpus:
            until(lambda: self.ready(host), 120, f"{host} serves")  # noqa: B023
        for gateway in self.gateways:
            until(lambda: self.models(gateway) == ["tiny"], 30, f"{gateway} knows it")  # noqa: B023

    @contextmanager
    def now(self, host: str, *lines: str) -> Iterator[None]:
        """*host*'s NVML says *lines* besides, while the block runs."""
        before = self.root(host, f"cat {RUN}/state")
        more = "".join(f"{line}\n" for line in lines)
        self.put(host, f"{RUN}/state", f"{before}{more}".encode())
        moment = self.status(host)["at"]
        until(lambda: self.status(host)["at"] > moment + 2, 20, f"two more looks on {host}")
        try:
            yield
        finally:
            self.put(host, f"{RUN}/state", before.encode())
