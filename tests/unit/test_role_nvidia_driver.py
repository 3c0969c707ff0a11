"""What the role decides and judges, on values: no host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from farrier.facts.driver import DriverFacts, Package
from farrier.facts.kernel import Kernel, KernelFacts
from farrier.facts.pci import NvidiaPci, PciFunction
from roles.nvidia_driver import DEFAULTS
from roles.nvidia_driver.guard import blacklist, module_options, preferences
from roles.nvidia_driver.kernels import headers
from roles.nvidia_driver.look import Look, Own, parse_own
from roles.nvidia_driver.names import package_set
from roles.nvidia_driver.plan import PlanError, decide, flavour_for, wanted_set
from roles.nvidia_driver.removal import choose
from roles.nvidia_driver.settings import Settings, SettingsError, read_settings
from roles.nvidia_driver.simulation import Simulation, judge, parse_simulation
from roles.nvidia_driver.transaction import RehearsalFact, explain, journal

DEBIAN = Settings("debian", "535")
PROPRIETARY = package_set("debian", "debian12", "535", "proprietary")
BARE = Look(own=Own(system="debian12", architecture="amd64"))

H100, B200, V100, NVSWITCH = 0x2330, 0x2901, 0x1DB1, 0x22A3


def data(**more: Any) -> dict[str, Any]:
    return {**DEFAULTS.data(), **more}


def gpus(*devices: int) -> NvidiaPci:
    return NvidiaPci(
        tuple(
            PciFunction(f"0000:{number:02x}:00.0", 0x10DE, device, 0x0302)
            for number, device in enumerate(devices)
        )
    )


def with_driver(version: str, *, module: str = "nvidia-kernel-dkms", held: bool = True) -> Look:
    names = (module, "libcuda1", "nvidia-smi", "nvidia-persistenced")
    return replace(
        BARE,
        driver=DriverFacts(
            packages=tuple(Package(name, version, "installed", held) for name in names)
        ),
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"nvidia_driver_source": "cuda"}, "nvidia_driver_source = 'cuda' has to be one of"),
        ({"nvidia_driver_flavour": True}, "nvidia_driver_flavour = True has to be one of"),
        ({"nvidia_driver_branch": "latest"}, "nvidia_driver_branch = 'latest' has to be a branch"),
        ({"nvidia_driver_version": 580.65}, "nvidia_driver_version = 580.65 has to be a version"),
        ({"nvidia_driver_version": "570.1"}, "is not of nvidia_driver_branch = '580'"),
        ({"nvidia_fabric": "yes"}, "nvidia_fabric = 'yes' has to be"),
        ({"nvidia_module_options": ["x"]}, "has to be a dictionary"),
        ({"nvidia_module_options": {"a b": 1}}, "'a b' is no module option's name"),
        ({"nvidia_module_options": {"a": "1 2"}}, "has blanks or quotes"),
    ],
)
def test_data_that_cannot_be_meant_is_refused_by_its_name(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told.replace("[", r"\[")):
        read_settings(data(**wrong))


@pytest.mark.parametrize(
    ("wanted", "version", "met"),
    [
        (None, "535.261.03-1", True),
        ("535.261.03", "535.261.03-1", True),
        ("535.261.03-1", "535.261.03-1", True),
        ("535.261.0", "535.261.03-1", False),
        ("535.261.03", "1:535.261.03-0ubuntu1", True),
        ("535.261.03-1", "535.261.03-1~deb12u1", True),
        ("535.309", "535.261.03-1", False),
    ],
)
def test_a_version_is_met_by_its_beginning_at_a_border(
    wanted: str | None, version: str, met: bool
) -> None:
    assert Settings("debian", "535", wanted).met_by(version) is met


@pytest.mark.parametrize(
    ("devices", "flavour", "branch", "chosen"),
    [
        ((), "auto", "535", "proprietary"),
        ((), "auto", "580", "open"),
        ((H100,), "auto", "580", "open"),
        ((H100,), "proprietary", "580", "proprietary"),
        ((B200,), "auto", "580", "open"),
        ((V100,), "auto", "580", "proprietary"),
    ],
)
def test_the_flavour_is_what_the_gpus_take(
    devices: tuple[int, ...], flavour: Any, branch: str, chosen: str
) -> None:
    assert flavour_for(Settings("nvidia", branch, None, flavour), gpus(*devices)) == chosen


@pytest.mark.parametrize(
    ("devices", "flavour", "told"),
    [
        ((B200,), "proprietary", "Blackwell works with the open"),
        ((V100,), "open", "Volta works with the proprietary"),
        ((V100, B200), "auto", "no driver serves both"),
    ],
)
def test_a_flavour_that_the_gpus_refuse_is_refused(
    devices: tuple[int, ...], flavour: Any, told: str
) -> None:
    with pytest.raises(PlanError, match=told):
        flavour_for(Settings("nvidia", "580", None, flavour), gpus(*devices))


def test_switches_bring_the_fabric_manager() -> None:
    switch = PciFunction("0000:c1:00.0", 0x10DE, NVSWITCH, 0x0680)
    look = replace(BARE, pci=NvidiaPci((*gpus(H100).functions, switch)))
    assert wanted_set(Settings("nvidia", "580"), look).fabric == ("nvidia-fabricmanager",)
    assert wanted_set(Settings("nvidia", "580", fabric=False), look).fabric == ()
    assert wanted_set(Settings("nvidia", "580", fabric=True), BARE).fabric != ()


def test_what_is_decided() -> None:
    def kind(look: Look, settings: Settings = DEBIAN, *, may_change: bool = False) -> str:
        return decide(settings, PROPRIETARY, look, may_change=may_change).kind

    other = Settings("debian", "535", "535.309.01")
    assert kind(BARE) == "install"
    assert kind(with_driver("535.261.03-1")) == "keep"
    assert kind(with_driver("535.261.03-1"), other) == "leave"
    assert kind(with_driver("535.261.03-1"), other, may_change=True) == "change"
    target = {"nvidia-kernel-dkms": "535.261.03-1"}
    interrupted = replace(BARE, own=replace(BARE.own, phase="install", target=target))
    assert kind(interrupted) == kind(interrupted, may_change=True) == "repair"
    assert kind(interrupted, other) == "change"
    assert kind(with_driver("535.261.03-1", module="nvidia-open-kernel-dkms")) == "leave"


def test_what_is_left_alone_says_both_versions_and_the_command() -> None:
    words = decide(
        Settings("debian", "535", "535.309.01"),
        PROPRIETARY,
        with_driver("535.261.03-1"),
        may_change=False,
    ).words
    assert "nvidia-kernel-dkms 535.261.03-1 is installed" in words
    assert "535.309.01" in words
    assert "pyinfra inventory deploys/driver.py" in words


def test_a_driver_of_nvidias_own_installer_is_never_overwritten() -> None:
    look = replace(BARE, driver=DriverFacts(runfile=True))
    with pytest.raises(PlanError, match="nvidia-uninstall --silent"):
        decide(DEBIAN, PROPRIETARY, look, may_change=True)


# Recorded on Debian 12 (bookworm) on 2026-11-21, shortened.
INSTALL = """\
NOTE: This is only a simulation!
The following NEW packages will be installed:
  dkms nvidia-kernel-dkms
Inst dkms (3.0.10-8+deb12u1 Debian:12.15/oldstable [all])
Inst nvidia-kernel-dkms (535.261.03-1 Debian:12.15/oldstable [amd64])
Conf nvidia-kernel-dkms (535.261.03-1 Debian:12.15/oldstable [amd64])
"""
UPGRADE = """\
Inst libcuda1 [535.261.03-1] (535.309.01-0+deb12u1 Debian-Security:12/oldstable-security [amd64]) []
Remv nvidia-open-kernel-dkms [535.261.03-1]
Inst nvidia-kernel-dkms [535.261.03-1] (535.309.01-0+deb12u1 Debian-Security:12/oldstable-security)
"""
UNMET = """\
Some packages could not be installed. This may mean that you have
The following packages have unmet dependencies:
 nvidia-open-kernel-dkms : Depends: firmware-nvidia-gsp (= 535.261.03) or
                                    firmware-nvidia-gsp-535.261.03
                           Depends: nvidia-open-kernel-support--v1
E: Unable to correct problems, you have held broken packages.
"""


def test_a_simulation_is_parsed() -> None:
    install = parse_simulation(INSTALL.splitlines())
    assert install.new == ("dkms", "nvidia-kernel-dkms")
    assert install.after({}) == {"nvidia-kernel-dkms": "535.261.03-1"}
    upgrade = parse_simulation(UPGRADE.splitlines())
    assert upgrade.new == ()
    assert next((one.name, one.old, one.version) for one in upgrade.installs) == (
        "libcuda1",
        "535.261.03-1",
        "535.309.01-0+deb12u1",
    )
    assert dict(upgrade.removes) == {"nvidia-open-kernel-dkms": "535.261.03-1"}
    before = {"nvidia-open-kernel-dkms": "535.261.03-1", "nvidia-smi": "535.261.03-1"}
    assert "nvidia-open-kernel-dkms" not in upgrade.after(before)
    assert upgrade.after(before)["nvidia-smi"] == "535.261.03-1"


def test_apts_own_reason_is_told() -> None:
    (problem,) = judge(parse_simulation(UNMET.splitlines()), PROPRIETARY, {})
    assert "nvidia-open-kernel-dkms : Depends: firmware-nvidia-gsp (= 535.261.03)" in problem
    assert "you have held broken packages" in problem


@pytest.mark.parametrize(
    ("removed", "refused"),
    [
        ("nginx", True),
        ("nvidia-container-toolkit", True),
        ("linux-image-amd64", True),
        ("nvidia-open-kernel-dkms", False),
        ("libcuda1:i386", False),
        ("glx-alternative-nvidia", False),
    ],
)
def test_only_the_drivers_own_packages_may_go(removed: str, refused: bool) -> None:
    lines = [*INSTALL.splitlines(), f"Remv {removed} [1.0]"]
    problems = list(judge(parse_simulation(lines), PROPRIETARY, {}))
    assert bool(problems) is refused
    assert all(removed in problem for problem in problems)


def test_a_fabric_manager_of_another_version_is_refused() -> None:
    wanted = package_set("nvidia", "debian12", "580", "open", fabric=True)
    lines = [f"Inst {name} (580.95.05-1 NVIDIA:d [amd64])" for name in wanted.required]
    good = [*lines, "Inst nvidia-fabricmanager (580.95.05-0ubuntu1 NVIDIA:d [amd64])"]
    bad = [*lines, "Inst nvidia-fabricmanager (580.105.08-1 NVIDIA:d [amd64])"]
    assert list(judge(parse_simulation(good), wanted, {})) == []
    (problem,) = judge(parse_simulation(bad), wanted, {})
    assert "nvidia-fabricmanager would be 580.105.08 beside driver 580.95.05" in problem
    (problem,) = judge(parse_simulation(lines), wanted, {})
    assert "nvidia-fabricmanager would be absent" in problem


def test_the_transaction_leaves_apt_nothing_to_choose() -> None:
    written = journal(
        parse_simulation(UPGRADE.splitlines()),
        {"nvidia-smi": "535.261.03-1", "libcuda1": "535.261.03-1"},
        ["linux-headers-amd64"],
    ).files
    assert written["arguments"].split() == [
        "--allow-downgrades",
        "--allow-change-held-packages",
        "install",
        "libcuda1=535.309.01-0+deb12u1",
        "nvidia-kernel-dkms=535.309.01-0+deb12u1",
        "nvidia-smi=535.261.03-1",
        "nvidia-open-kernel-dkms-",  # held or not, it goes
        "linux-headers-amd64",
    ]
    assert written["new"] == ""


def test_the_guard_names_every_package_and_keeps_the_rest_of_the_families_out() -> None:
    text = preferences({"nvidia-smi": "535.261.03-1", "libcuda1": "535.261.03-1"})
    records = text.split("\n\n")
    assert "Package: libcuda1\nPin: version 535.261.03-1\nPin-Priority: 1001" in records
    assert "nvidia-kernel*" in records[-1]
    assert records[-1].endswith("Pin-Priority: -1\n")
    assert "container" not in text
    assert '"^libcuda1$";' in blacklist({"libcuda1": "1"})


def test_module_options_reach_debians_renamed_modules() -> None:
    options = {"NVreg_EnableGpuFirmware": "0", "nvidia_drm.modeset": "1"}
    text = module_options(replace(DEBIAN, module_options=options))
    assert text is not None
    assert "options nvidia NVreg_EnableGpuFirmware=0\n" in text
    assert "options nvidia-current NVreg_EnableGpuFirmware=0\n" in text
    assert "options nvidia-current-drm modeset=1\n" in text
    assert module_options(DEBIAN) is None
    vendors = module_options(Settings("nvidia", "580", module_options=options))
    assert vendors is not None
    assert "current" not in vendors


@pytest.mark.parametrize(
    ("images", "system", "meta"),
    [
        ((), "debian12", "linux-headers-amd64"),
        (("linux-image-6.1.0-49-amd64", "linux-image-amd64"), "debian12", "linux-headers-amd64"),
        (("linux-image-cloud-amd64",), "debian13", "linux-headers-cloud-amd64"),
        ((), "ubuntu24.04", "linux-headers-generic"),
        (("linux-image-generic-hwe-22.04",), "ubuntu22.04", "linux-headers-generic-hwe-22.04"),
    ],
)
def test_the_next_kernels_headers_come_with_it(
    images: tuple[str, ...], system: str, meta: str
) -> None:
    assert headers(KernelFacts(), images, system, "amd64").meta == (meta,)


def test_every_installed_kernel_without_headers_gets_them() -> None:
    kernels = KernelFacts(
        kernels=(
            Kernel("6.1.0-49-amd64", headers=True, image=True),
            Kernel("6.1.0-56-amd64", headers=False, image=True),
            Kernel("6.1.0-12-amd64", headers=False, image=False),
        )
    )
    found = headers(kernels, ("linux-image-amd64",), "debian12", "amd64")
    assert found.each == ("linux-headers-6.1.0-56-amd64",)


def test_what_the_host_says_of_itself_is_parsed() -> None:
    own = parse_own(
        [
            "system debian12",
            "architecture amd64",
            "image linux-image-amd64",
            "engine engine-tiny.service",
            "open build",
            "target nvidia-smi 535.261.03-1",
            "recorded",
            "set nvidia-smi 535.309.01-0+deb12u1",
            "unguarded /etc/apt/preferences.d/farrier-nvidia",
            "left",
        ]
    )
    assert own == Own(
        "debian12",
        "amd64",
        ("linux-image-amd64",),
        ("engine-tiny.service",),
        "build",
        {"nvidia-smi": "535.261.03-1"},
        {"nvidia-smi": "535.309.01-0+deb12u1"},
        ("/etc/apt/preferences.d/farrier-nvidia",),
        left=True,
    )
    assert parse_own(["recorded"]).recorded == {}
    assert parse_own([]).recorded is None


def test_the_rehearsals_answer_is_parsed() -> None:
    rehearsal = RehearsalFact().process(
        [
            "offer 535.309.01-0+deb12u1",
            "offer 535.261.03-1",
            "version 535.261.03-1",
            "unknown linux-headers-6.1.0-9-amd64",
            "simulation",
            *INSTALL.splitlines(),
        ]
    )
    assert rehearsal.version == "535.261.03-1"
    assert rehearsal.offers == ("535.309.01-0+deb12u1", "535.261.03-1")
    assert rehearsal.unknown == ("linux-headers-6.1.0-9-amd64",)
    assert rehearsal.simulation.new == ("dkms", "nvidia-kernel-dkms")
    assert RehearsalFact().process(["offer 1"]).version is None


def test_a_removal_spares_what_others_have_come_to_need() -> None:
    mine = ["gcc-12", "linux-headers-amd64", "make", "nvidia-smi"]
    all_of_them = parse_simulation([f"Purg {name} [1]" for name in mine])
    assert choose(mine, ["nvidia-smi", "linux-headers-amd64"], all_of_them) == tuple(mine)
    assert "make" not in choose(mine, ["make"], all_of_them)
    more = Simulation(removes={**all_of_them.removes, "build-essential": "12"})
    assert choose(mine, [], more) == ("linux-headers-amd64", "nvidia-smi")


def test_a_failed_build_tells_the_compilers_words() -> None:
    told = explain(
        "farrier: build\nfarrier: x/1 could not be built for kernel 6.1; the\nmake: err\n"
    )
    assert "could not be built for kernel 6.1" in told.splitlines()[0]
    assert "make: err" in told
    assert "/var/lib/farrier/nvidia/log" in told


def test_what_apt_says_of_a_failed_build_is_not_told_before_the_compilers_words() -> None:
    told = explain(
        "Setting up x\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n"
        "farrier: x/1 could not be built for kernel 6.1; the compiler said:\n"
        "x.c:1:2: error: stand-in\n"
    ).splitlines()
    assert "could not be built for kernel 6.1" in told[0]
    assert told[1] == "x.c:1:2: error: stand-in"


def test_what_a_package_complained_of_is_not_lost_among_those_that_went_well() -> None:
    well = "".join(f"Preparing to unpack {n}\nUnpacking {n}\nSetting up {n}\n" for n in range(20))
    failed = "no space left on device\ndpkg: error processing package x (--configure):\n"
    told = explain(f"{well}{failed}{well}").splitlines()
    assert told[:3] == ["the driver's transaction failed", *failed.splitlines()]
