"""NVIDIA's driver: there, new enough, in one piece, loaded, and of one source."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from farrier.preflight.verdict import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.facts.driver import DriverFacts, Package
    from farrier.preflight.found import Case

__all__ = ["BOTH", "CODES", "CONVERGE_ONLY", "RULES"]

BOTH = ("llm", "driver")
"""Deploys that bring a driver where there is none, or only half of one."""

CHANGE = ("driver",)
"""The deploy that changes a driver; converging leaves the installed one."""

CONVERGE_ONLY = ("driver", "llm")
"""What the driver's own deploy changes, and a converge says at its end and leaves."""

_BRING = 'nvidia_driver_source = "nvidia", nvidia_driver_branch = "{branch}"; then: pyinfra --limit'
_BRING += " {host} inventory deploys/driver.py"

DRIVER_MISSING = Code(
    "driver-missing",
    "refuse",
    "No driver is installed, and the inventory's nvidia_driver_source is none: nobody brings one.",
    _BRING,
    "inventory",
)
DRIVER_TOO_OLD = Code(
    "driver-too-old",
    "refuse",
    "The driver is older than what the engine's CUDA needs. CUDA programs fail with error 803 or"
    " 804, or fall back to the CPU. A converge does not change an installed driver.",
    "{repair}",
    "operator",
    shown="pyinfra --limit HOST inventory deploys/driver.py   (source none: see driver-missing)",
)
PLAN_TOO_OLD = Code(
    "plan-too-old",
    "refuse",
    "The inventory wants a driver that is too old for the engine's CUDA.",
    'nvidia_driver_branch = "{branch}", nvidia_driver_version = None',
    "inventory",
)
DRIVER_OTHER = Code(
    "driver-other",
    "warn",
    "The installed driver is of another version or branch than the inventory says.",
    "pyinfra --limit {host} inventory deploys/driver.py",
    "operator",
)
LIBRARY_MISMATCH = Code(
    "library-mismatch",
    "refuse",
    "The module in the kernel and the libraries on the disk are of different versions: the packages"
    " were upgraded under a running driver. New CUDA programs and nvidia-smi fail until a reboot.",
    "systemctl reboot",
)
LIBRARY_MISSING = Code(
    "library-missing",
    "refuse",
    "A kernel module is there, but no libcuda: half a driver.",
    "{repair}",
    shown="apt-get install -y libcuda1 nvidia-smi   (Ubuntu: libnvidia-compute-BRANCH-server …)",
)
DRIVER_NOT_LOADED = Code(
    "driver-not-loaded",
    "refuse",
    "A driver is installed and its kernel module is not loaded. modprobe says why, dmesg more.",
    "modprobe nvidia",
)
SMI_FAILS = Code(
    "nvidia-smi-fails",
    "refuse",
    "The driver is loaded and nvidia-smi fails: the driver's state is broken, or a GPU hangs.",
    "systemctl reboot",
)
MIXED_SOURCES = Code(
    "mixed-sources",
    "warn",
    "Packages of the driver come from different archives: the next upgrade tears them apart.",
    "apt-get purge -y {packages}",
)
RUNFILE = Code(
    "runfile",
    "warn",
    "NVIDIA's .run installer put a driver here past dpkg: packages would overwrite its files, and a"
    " new kernel gets no module. Refused where the role is to bring packages.",
    "nvidia-uninstall --silent",
)
NOT_HELD = Code(
    "not-held",
    "warn",
    "Packages of the driver are not held: an apt-get upgrade takes the libraries away from under"
    " running engines.",
    "apt-mark hold {packages}",
)


def installed_packages(driver: DriverFacts) -> tuple[Package, ...]:
    """Those that are on the disk, complete or not."""
    return tuple(one for one in driver.packages if one.state not in {"config-files", ""})


def present(case: Case) -> Iterator[Reason]:
    """A driver on the disk, or a role that brings it."""
    driver, need = case.found.driver, case.wanted.engine_need
    if driver is None or not case.wanted.cuda or case.driver:
        return
    why = f"{need[0]} is built for CUDA {need[1]}, which needs {need[2]} or newer" if need else ""
    # Firmware or a persistence daemon that was left behind drives no GPU.
    names = ", ".join(one.name for one in installed_packages(driver)) or "none"
    told = f"no NVIDIA driver (installed: {names}){'; ' + why if why else ''}"
    if case.wanted.driver.brings:
        yield DRIVER_MISSING.left_to(BOTH, case.host, told)
    else:
        yield DRIVER_MISSING.reason(told, host=case.host, branch=need[2].branch if need else 580)


def new_enough(case: Case) -> Iterator[Reason]:
    """For the engines' CUDA, as it is and as the inventory wants it."""
    need = case.wanted.engine_need
    if need is None or not case.needs_nvidia:
        return
    engine, cuda, oldest = need
    for_what = f"{engine} is built for CUDA {cuda}, which needs {oldest} or newer"
    planned = case.wanted.driver.release
    # A branch, or the beginning of a version, means its newest release.
    if planned and planned.numbers < oldest.numbers[: len(planned.numbers)]:
        yield PLAN_TOO_OLD.reason(
            f"the inventory wants driver {planned}; {for_what}", branch=oldest.branch
        )
    if case.driver and case.driver < oldest:
        brings = case.wanted.driver.brings
        command = f"pyinfra --limit {case.host} inventory deploys/driver.py"
        bring = _BRING.format(branch=oldest.branch, host=case.host)
        yield DRIVER_TOO_OLD.reason(
            f"driver {case.driver} is installed; {for_what}",
            where="operator" if brings else "inventory",
            deploys=CHANGE if brings else (),
            repair=command if brings else bring,
        )


def as_wanted(case: Case) -> Iterator[Reason]:
    """Of the version that the inventory says."""
    planned = case.wanted.driver.release
    if planned is None or case.installed is None or not case.needs_nvidia:
        return
    if case.installed.numbers[: len(planned.numbers)] != planned.numbers:
        told = f"driver {case.installed} is installed, the inventory says {planned}"
        yield DRIVER_OTHER.left_to(CONVERGE_ONLY, case.host, told)


def in_one_piece(case: Case) -> Iterator[Reason]:
    """Module and libraries of the same version, both there."""
    driver = case.found.driver
    if driver is None or not case.wanted.cuda:
        return
    if driver.loaded and driver.library and driver.loaded != driver.library:
        told = f"the kernel runs driver {driver.loaded}, the libraries are {driver.library}"
        yield LIBRARY_MISMATCH.reason(
            f"{told}: nothing that starts now can use a GPU", deploys=CHANGE
        )
    elif case.driver and not driver.library:
        told = f"driver {case.driver} has a kernel module, and there is no libcuda"
        if case.wanted.driver.brings:
            yield LIBRARY_MISSING.left_to(BOTH, case.host, told)
        else:
            branch = case.driver.branch
            ours = "libcuda1 nvidia-smi" if case.debian else f"libnvidia-compute-{branch}-server"
            yield LIBRARY_MISSING.reason(told, repair=f"apt-get install -y {ours}")


def loaded(case: Case) -> Iterator[Reason]:
    """In the kernel, and answering."""
    driver = case.found.driver
    if driver is None or not case.wanted.cuda or not case.gpus:
        return
    if driver.loaded is None:
        if not case.installed:
            return
        told = f"driver {case.installed} is installed and not loaded"
        if case.wanted.driver.brings:
            # The role loads it, or says at the end that a reboot has to.
            yield DRIVER_NOT_LOADED.reason(told, severity="warn", deploys=BOTH)
        else:
            yield DRIVER_NOT_LOADED.reason(told)
    elif driver.smi_error and driver.library == driver.loaded:
        # With another library or none it has to fail, which the driver's own deploy mends.
        yield SMI_FAILS.reason(f"the driver is loaded, and nvidia-smi fails: {driver.smi_error}")


def of_one_source(case: Case) -> Iterator[Reason]:
    """All packages from one archive, and nothing past dpkg."""
    driver = case.found.driver
    if driver is None or not case.wanted.cuda:
        return
    if driver.runfile:
        yield RUNFILE.reason(
            "a driver of NVIDIA's .run installer is here, past dpkg",
            severity="refuse" if case.wanted.driver.brings else "warn",
        )
    known = [one for one in installed_packages(driver) if one.origin not in {"", "local"}]
    by_origin = Counter(one.origin for one in known)
    if len(by_origin) > 1:
        main = by_origin.most_common(1)[0][0]
        foreign = [one.name for one in known if one.origin != main]
        counted = " and ".join(f"{count} from {origin}" for origin, count in by_origin.items())
        yield MIXED_SOURCES.reason(
            f"packages of the driver come from different archives: {counted}"
            f" ({', '.join(foreign)} not from {main})",
            packages=" ".join(foreign),
        )


def held(case: Case) -> Iterator[Reason]:
    """Against upgrades by hand. Those by unattended-upgrades have a reason of their own."""
    driver, updates = case.found.driver, case.found.updates
    if driver is None or not case.wanted.cuda:
        return
    loose = [one.name for one in installed_packages(driver) if not one.held]
    if not loose or (updates and updates.unattended_enabled and updates.touchable):
        return
    told = f"{len(loose)} packages of the driver are not held: {', '.join(loose[:4])}"
    told += ", …" if len(loose) > 4 else ""
    if case.wanted.driver.brings:
        yield NOT_HELD.left_to(BOTH, case.host, told)
    else:
        yield NOT_HELD.reason(told, packages=" ".join(loose))


CODES = (
    DRIVER_MISSING,
    DRIVER_TOO_OLD,
    PLAN_TOO_OLD,
    DRIVER_OTHER,
    LIBRARY_MISMATCH,
    LIBRARY_MISSING,
    DRIVER_NOT_LOADED,
    SMI_FAILS,
    MIXED_SOURCES,
    RUNFILE,
    NOT_HELD,
)
RULES = (present, new_enough, as_wanted, in_one_piece, loaded, of_one_source, held)
