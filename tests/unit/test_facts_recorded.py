"""Every parser against what real systems printed, and against what none should trip over."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from farrier.facts.apt import AptFacts, parse_sources
from farrier.facts.driver import DriverFacts, Module, Package
from farrier.facts.kernel import Kernel, KernelFacts
from farrier.facts.machine import MachineFacts
from farrier.facts.pci import NvidiaPci
from farrier.facts.updates import UpdateFacts
from farrier.nvidia.generations import Generation, generation_of, has_nvlink5
from farrier.nvidia.versions import DriverVersion
from tests.unit.recorded import FACTS, HERE, lines_of, recordings

Parse = Callable[[Sequence[str]], Any]
PARSERS: dict[str, Parse] = {
    **{name: import_module(f"farrier.facts.{name}").parse for name in FACTS},
    "sources": parse_sources,
}


def read(folder: str, fact: str) -> Any:
    return PARSERS[fact](lines_of(HERE / folder / f"{fact}.txt"))


def test_every_system_and_every_fact_is_recorded() -> None:
    for folder in ("debian12", "debian13", "ubuntu2204", "ubuntu2404", "debian12-halfway",
                   "debian12-driver", "debian13-driver"):  # fmt: skip
        assert {path.stem for path in (HERE / folder).glob("*.txt")} == set(FACTS), folder


@pytest.mark.parametrize("path", recordings(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_says_where_it_is_from(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith(("# Recorded 2", "# Composed by hand: "))


@pytest.mark.parametrize("system", ["debian12", "debian13"])
def test_a_bare_debian(system: str) -> None:
    assert read(system, "driver") == DriverFacts()
    assert read(system, "pci") == NvidiaPci()
    assert read(system, "kernel") == KernelFacts("6.1.0-0-recorded", container=True)
    assert read(system, "updates") == UpdateFacts()
    apt: AptFacts = read(system, "apt")
    assert apt.sqv is (system == "debian13")
    assert [len(source.suites) for source in apt.sources] == [2, 1]
    machine: MachineFacts = read(system, "machine")
    assert machine.clock_synchronized is False
    assert machine.iommu == "off"
    fabric = read(system, "fabric")
    assert fabric.manager.load == "not-found"
    assert not fabric.manager.present


def test_debian_13_with_debians_driver() -> None:
    driver: DriverFacts = read("debian13-driver", "driver")
    assert driver.loaded is None
    assert driver.library == "550.163.01"
    assert driver.modules == {"6.12.117+deb13-amd64": Module("550.163.01", "proprietary")}
    assert Package("libcuda1", "550.163.01-2", "installed", True, "debian") in driver.packages
    assert all(package.held for package in driver.packages)
    kernel: KernelFacts = read("debian13-driver", "kernel")
    assert kernel.newest == Kernel(
        "6.12.117+deb13-amd64", True, True, {"nvidia-current/550.163.01": "installed"}
    )
    assert kernel.compiler  # gcc-14, and no plain gcc
    assert read("debian13-driver", "updates").touchable == ()
    assert read("debian13-driver", "fabric").persistenced.enabled == "enabled"


def test_debian_12_with_debians_driver() -> None:
    driver: DriverFacts = read("debian12-driver", "driver")
    assert driver.library is not None
    assert driver.library.startswith("535.")
    assert [module.version for module in driver.modules.values()] == [driver.library]
    assert {package.origin for package in driver.packages} == {"debian"}
    kernel: KernelFacts = read("debian12-driver", "kernel")
    assert kernel.dkms_installed
    assert kernel.newest is not None
    assert list(kernel.newest.dkms.values()) == ["installed"]
    apt: AptFacts = read("debian12-driver", "apt")
    assert (apt.busy, apt.interrupted, apt.broken) == (False, False, "")


def test_a_driver_half_changed() -> None:
    apt: AptFacts = read("debian12-halfway", "apt")
    assert apt.busy
    assert not apt.interrupted
    driver: DriverFacts = read("debian12-halfway", "driver")
    half = [package for package in driver.packages if package.state != "installed"]
    assert [package.name for package in half] == ["nvidia-open-kernel-dkms"]
    assert driver.modules == {}
    kernel: KernelFacts = read("debian12-halfway", "kernel")
    assert kernel.newest is not None
    assert kernel.newest.dkms == {"nvidia-current-open/535.261.03": "added"}


@pytest.mark.parametrize(
    ("system", "mode", "release"),
    [("ubuntu2204", "i", "5.15.0-204-generic"), ("ubuntu2404", "a", "6.8.0-151-generic")],
)
def test_ubuntu_with_ubuntus_driver(system: str, mode: str, release: str) -> None:
    driver: DriverFacts = read(system, "driver")
    assert driver.library == "580.178.04"
    assert {package.origin for package in driver.packages} == {"ubuntu"}
    assert [package.name for package in driver.packages if package.held] == [
        "libnvidia-compute-580-server",
        "nvidia-dkms-580-server-open",
    ]
    kernel: KernelFacts = read(system, "kernel")
    assert kernel.newest == Kernel(release, False, True, {"nvidia/580.178.04": "added"})
    assert kernel.nouveau_blacklisted
    updates: UpdateFacts = read(system, "updates")
    assert updates.unattended_enabled
    assert "nvidia-utils-580-server" in updates.touchable
    assert "libnvidia-compute-580-server" not in updates.touchable
    assert updates.needrestart == mode
    assert not updates.needrestart_spares
    assert updates.reboot_because == (f"linux-image-{release}",)
    fabric = read(system, "fabric")
    assert fabric.manager_version == "580.178.04"
    assert fabric.manager.restarts is None  # no systemd ran there
    assert read(system, "machine").clock_synchronized is None


def test_an_hgx_h100() -> None:
    pci: NvidiaPci = read("hgx-h100", "pci")
    assert (len(pci.gpus), len(pci.nvswitches)) == (8, 4)
    assert {generation_of(gpu.device) for gpu in pci.gpus} == {Generation.HOPPER}
    driver: DriverFacts = read("hgx-h100", "driver")
    assert (driver.loaded, driver.loaded_flavour, driver.library) == (
        "580.95.05",
        "open",
        "580.95.05",
    )
    assert [gpu.pci for gpu in driver.gpus] == [gpu.address for gpu in pci.gpus]
    assert {package.origin for package in driver.packages} == {"nvidia"}
    assert read("hgx-h100", "fabric").manager_version == driver.loaded
    assert read("hgx-h100", "containers").cdi[0].driver_version == driver.loaded
    assert read("hgx-h100", "updates").touchable == ()
    assert read("hgx-h100", "updates").needrestart_spares
    assert read("hgx-h100", "machine").acs == ()


def test_an_hgx_b200() -> None:
    pci: NvidiaPci = read("hgx-b200", "pci")
    assert (len(pci.gpus), len(pci.nvswitches), len(pci.nvlink_managers)) == (8, 0, 4)
    assert all(has_nvlink5(gpu.device) for gpu in pci.gpus)
    fabric = read("hgx-b200", "fabric")
    assert (fabric.manager.active, fabric.manager.restarts) == ("failed", 5)
    assert fabric.ib_umad_loaded
    assert not fabric.ib_umad_configured


def test_libraries_that_were_upgraded_under_the_module() -> None:
    driver: DriverFacts = read("p40-mismatch", "driver")
    loaded, library = DriverVersion.parse(driver.loaded or ""), driver.library
    assert loaded != DriverVersion.parse(library or "")
    assert "version mismatch" in driver.smi_error
    kernel: KernelFacts = read("p40-mismatch", "kernel")
    assert kernel.secure_boot is True
    assert kernel.mok_enrolled is False
    assert [one.dkms for one in kernel.kernels] == [{"nvidia-current/535.309.01": "differs"}, {}]


@pytest.mark.parametrize("fact", PARSERS)
def test_nothing_and_noise(fact: str) -> None:
    """An answer that was cut off, mixed up or made up is read as far as it goes; never an error."""
    parse = PARSERS[fact]
    empty = parse([])
    noise = random.Random(f"farrier {fact}")  # noqa: S311 - the same noise every time
    assert parse(["", " ", "\0", "bash: warning: setlocale: LC_ALL: cannot change locale"]) == empty
    every = [lines_of(path) for path in recordings()]
    words = sorted({line.partition(" ")[0] for lines in every for line in lines if line})
    for lines in every:
        parse(lines)
        parse([line[: noise.randrange(len(line) + 1)] for line in lines])
        parse(noise.sample(lines, len(lines)))
        parse(["".join(noise.choices(string.printable, k=30)) for _ in lines])
    for _ in range(300):
        kind = noise.choice(words)
        rest = "".join(
            noise.choices("0123456789abcxyz./|,:\"'[]{}()-_= %\t", k=noise.randrange(40))
        )
        parse([f"{kind} {rest}", f"{kind}{rest}", kind])


@pytest.mark.parametrize("fact", FACTS)
def test_the_same_whatever_stands_around_it(fact: str) -> None:
    """Lines of other facts, as after a mix-up of answers, add nothing of theirs."""
    for path in recordings(fact):
        lines = lines_of(path)
        assert PARSERS[fact]([*lines, "", "motd: welcome", "Last login: today"]) == (
            PARSERS[fact](lines)
        )
