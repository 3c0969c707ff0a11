"""Which packages the stand-ins have: the vendors' names and relations, by branch and version.

Sources of the names: see ``roles/nvidia_driver/names.py``. Relations are those of noble-updates,
and of NVIDIA's packages as far as they are published; where they are not, the same pattern.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.fakes.nvidia_repo.debs import Package

__all__ = [
    "DOES_NOT_BUILD",
    "DOES_NOT_INSTALL",
    "WITHOUT_FABRIC_MANAGER",
    "for_debian",
    "for_ubuntu",
    "in_ubuntus_archive",
]

VERSIONS = ("570.195.03", "580.82.07", "580.95.05", "580.105.08", "590.48.01")
"""Upstream versions in NVIDIA's repositories."""
WITHOUT_FABRIC_MANAGER = "580.82.07"
"""The driver whose fabric manager is not on offer."""
DOES_NOT_BUILD = "580.65.06"
"""The driver whose module no compiler takes (for Debian)."""
DOES_NOT_INSTALL = "580.76.05"
"""The driver one of whose packages fails in its postinst (for Debian)."""
ARCHIVED = ("580.95.05", "580.126.09", "595.71.05")
"""Upstream versions in Ubuntu's archive; 570 and 590 are empty dependencies on the next branch."""

_LIBRARIES = "/usr/lib/x86_64-linux-gnu"
NVLSM = "2025.10.14-1"

_UNIT = """\
# Stand-in.
[Unit]
Description={name} (stand-in)
[Service]
ExecStart=/usr/bin/{name}
[Install]
WantedBy=multi-user.target
"""
_DAEMON = """\
#!/bin/sh
# Stand-in: as the real one, it fails where no GPU is, and holds what it finds.
[ -e /dev/nvidiactl ] || { echo "no device found (stand-in)" >&2; exit 1; }
[ ! -e "/run/fake-gpu/broken/${0##*/}" ] || { echo "it fails here (stand-in)" >&2; exit 1; }
exec sleep infinity 3</dev/nvidiactl
"""
_SMI = """\
#!/bin/sh
# Stand-in: says what the real one says without a loaded driver.
echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. (stand-in)"
exit 9
"""
_FAILS = {"postinst": 'echo "no space left on device (stand-in)" >&2\nexit 1'}
_MODULE = """\
/* Stand-in: an empty kernel module with the driver's name and version. */
#include <linux/module.h>
static int __init begin(void) { return 0; }
static void __exit end(void) { }
module_init(begin);
module_exit(end);
MODULE_LICENSE("%s");
MODULE_VERSION("%s");
MODULE_DESCRIPTION("stand-in");
"""


def _module(name: str, version: str, flavour: str, relations: dict[str, str]) -> Package:
    """A DKMS package whose tiny module really builds against installed headers."""
    upstream = version.partition("-")[0]
    source = f"/usr/src/nvidia-{upstream}"
    licence = "Dual MIT/GPL" if flavour == "open" else "NVIDIA"
    return Package(
        name,
        version,
        {**relations, "Depends": f"dkms, {relations['Depends']}"},
        {
            f"{source}/dkms.conf": (
                f'PACKAGE_NAME="nvidia"\nPACKAGE_VERSION="{upstream}"\n'
                'BUILT_MODULE_NAME[0]="nvidia"\nDEST_MODULE_LOCATION[0]="/kernel/drivers/char"\n'
                'MAKE[0]="make -C ${kernel_source_dir} M=${dkms_tree}/nvidia/'
                f'{upstream}/build modules"\n'
                'CLEAN="true"\nAUTOINSTALL="yes"\n'
            ),
            f"{source}/Makefile": "obj-m := nvidia.o\n",
            f"{source}/nvidia.c": ("#error stand-in\n" if upstream == DOES_NOT_BUILD else "")
            + _MODULE % (licence, upstream),
        },
        {
            "postinst": (
                'if [ "$1" = configure ]; then\n'
                f'    /usr/lib/dkms/common.postinst nvidia {upstream} "" "" "$2"\n'
                "fi"
            ),
            "prerm": (
                'case "$1" in remove|upgrade|deconfigure)\n'
                f"    dkms remove -m nvidia -v {upstream} --all >/dev/null 2>&1 || true;;\n"
                "esac"
            ),
        },
    )


def _daemon(name: str, version: str, relations: dict[str, str] | None = None) -> Package:
    program = name if name == "nvidia-persistenced" else "nv-fabricmanager"
    service = "nvidia-persistenced" if name == "nvidia-persistenced" else "nvidia-fabricmanager"
    return Package(
        name,
        version,
        relations or {},
        {
            f"/lib/systemd/system/{service}.service": _UNIT.format(name=program),
            f"/usr/bin/{program}": _DAEMON,
        },
    )


def _fabric(upstream: str, revision: str) -> Iterator[Package]:
    if upstream == WITHOUT_FABRIC_MANAGER:
        return
    branch = upstream[:3]
    name = "nvidia-fabricmanager" if int(branch) >= 580 else f"nvidia-fabricmanager-{branch}"
    yield _daemon(
        name,
        f"{upstream}-{revision}",
        {} if int(branch) >= 580 else {"Provides": "nvidia-fabricmanager"},
    )


def _common(revision: str) -> Iterator[Package]:
    """What both of NVIDIA's repositories have."""
    for upstream in VERSIONS:
        yield from _fabric(upstream, revision)
    yield Package("nvlsm", NVLSM, {"Depends": "libibumad3"}, {"/usr/bin/nvlsm": _DAEMON})
    # Something of NVIDIA's that is no driver, and something that Debian has as well.
    yield Package("cuda-toolkit-13-0", "13.0.2-1")
    yield Package("hello", "99.0-1", about="stand-in: must never win over the distribution's")
    for branch in dict.fromkeys(upstream[:3] for upstream in VERSIONS):
        yield Package(
            f"nvidia-driver-pinning-{branch}",
            f"{branch}-1",
            {
                "Provides": "nvidia-driver-pinning",
                "Conflicts": "nvidia-driver-pinning",
                "Replaces": "nvidia-driver-pinning",
            },
            {
                "/etc/apt/preferences.d/nvidia-driver-pinning": (
                    "# Stand-in.\nPackage: *nvidia* libcuda1 cuda-drivers*\n"
                    f"Pin: version {branch}.*\nPin-Priority: 1000\n"
                )
            },
            architecture="all",
        )


def for_debian() -> list[Package]:
    """NVIDIA's repository for a Debian: no branch in any name."""
    found = list(_common("1"))
    for upstream in (DOES_NOT_BUILD, DOES_NOT_INSTALL):
        found += _fabric(upstream, "1")
    for upstream in (*VERSIONS, DOES_NOT_BUILD, DOES_NOT_INSTALL):
        version = f"{upstream}-1"
        same = f"(= {version})"
        for flavour, name, other in (
            ("open", "nvidia-kernel-open-dkms", "nvidia-kernel-dkms"),
            ("proprietary", "nvidia-kernel-dkms", "nvidia-kernel-open-dkms"),
        ):
            needs = f"nvidia-kernel-support {same}, firmware-nvidia-gsp {same}"
            found.append(_module(name, version, flavour, {"Depends": needs, "Conflicts": other}))
        cuda = f"libcuda1 {same}, libnvidia-ml1 {same}, nvidia-persistenced {same}, nvidia-modprobe"
        found += [
            Package(
                "nvidia-driver-cuda",
                version,
                {"Depends": cuda, "Conflicts": "nvidia-smi"},
                {"/usr/bin/nvidia-smi": _SMI},
            ),
            Package(
                "libcuda1",
                version,
                {"Depends": f"libnvidia-ptxjitcompiler1 {same}"},
                {f"{_LIBRARIES}/libcuda.so.{upstream}": "stand-in\n"},
                links={f"{_LIBRARIES}/libcuda.so.1": f"libcuda.so.{upstream}"},
            ),
            Package("libnvidia-ptxjitcompiler1", version),
            Package("libnvidia-ml1", version),
            Package(
                "nvidia-kernel-support",
                version,
                {"Depends": "nvidia-modprobe"},
                scripts=_FAILS if upstream == DOES_NOT_INSTALL else {},
            ),
            Package("firmware-nvidia-gsp", version),
            Package("nvidia-modprobe", version),
            _daemon("nvidia-persistenced", version),
        ]
    return found


def for_ubuntu() -> list[Package]:
    """NVIDIA's repository for an Ubuntu: the branch in the names up to 580, not from 590 on."""
    found = list(_common("1"))
    for upstream in VERSIONS:
        branch = upstream[:3]
        suffix = f"-{branch}" if int(branch) <= 580 else ""
        version = f"{upstream}-0ubuntu1" if suffix else f"{upstream}-1ubuntu1"
        same = f"(= {version})"

        def one_of(virtual: str, suffix: str = suffix) -> dict[str, str]:
            """Of all branches only one is installed; from 590 on the name itself is that one."""
            if not suffix:
                return {"Replaces": virtual}
            return {"Provides": virtual, "Conflicts": virtual, "Replaces": virtual}

        for flavour, end in (("open", "-open"), ("proprietary", "")):
            sources = f"nvidia-kernel-source{suffix}{end}"
            needs = f"{sources} {same}, nvidia-kernel-common{suffix} {same}"
            kernel = {
                "Provides": "nvidia-dkms-kernel",
                "Conflicts": "nvidia-dkms-kernel",
                "Depends": needs,
            }
            found.append(_module(f"nvidia-dkms{suffix}{end}", version, flavour, kernel))
            found.append(Package(sources, version))
        library = one_of("libnvidia-compute")
        provided = ", ".join(filter(None, [library.get("Provides"), f"libcuda1 {same}"]))
        firmware = f"nvidia-firmware{suffix} {same}"
        found += [
            Package(
                f"nvidia-kernel-common{suffix}",
                version,
                {**one_of("nvidia-kernel-common"), "Depends": firmware},
            ),
            Package(f"nvidia-firmware{suffix}", version, one_of("nvidia-firmware")),
            Package(
                f"libnvidia-compute{suffix}",
                version,
                {**library, "Provides": provided, "Depends": f"nvidia-kernel-common{suffix}"},
                {} if suffix else {"/usr/bin/nvidia-smi": _SMI},
            ),
            _daemon("nvidia-persistenced", version),
            Package("nvidia-modprobe", version),
        ]
        if suffix:
            needs = f"libnvidia-compute{suffix} (>= {upstream})"
            utils = {**one_of("nvidia-utils"), "Depends": needs}
            found.append(
                Package(f"nvidia-utils{suffix}", version, utils, {"/usr/bin/nvidia-smi": _SMI})
            )
    return found


def in_ubuntus_archive() -> dict[str, list[Package]]:
    """Component -> packages of Ubuntu's own archive, the ``-server`` branches."""
    restricted: list[Package] = []
    multiverse: list[Package] = []
    for upstream in ARCHIVED:
        branch = upstream[:3]
        version = f"{upstream}-0ubuntu0.24.04.1"
        end = f"{branch}-server"
        common = f"nvidia-kernel-common-{end}"
        for flavour, opened in (("open", "-open"), ("proprietary", "")):
            sources = f"nvidia-kernel-source-{end}{opened}"
            kernel = {
                "Provides": "nvidia-dkms-kernel",
                "Conflicts": "nvidia-dkms-kernel",
                "Depends": f"{sources} (>= {upstream}), {common} (>= {upstream})",
            }
            restricted.append(_module(f"nvidia-dkms-{end}{opened}", version, flavour, kernel))
            restricted.append(Package(sources, version))
        firmware = f"nvidia-firmware-{end}-{upstream}"
        restricted += [
            Package(firmware, version),
            Package(
                common,
                version,
                {
                    "Provides": f"nvidia-kernel-common, {common}-{upstream}",
                    "Conflicts": "nvidia-kernel-common",
                    "Depends": firmware,
                },
            ),
            Package(
                f"libnvidia-compute-{end}",
                version,
                {
                    "Provides": f"libnvidia-compute, libcuda1 (= {version})",
                    "Conflicts": "libnvidia-compute",
                    "Depends": f"{common}-{upstream}",
                },
            ),
            Package(
                f"nvidia-utils-{end}",
                version,
                {
                    "Provides": "nvidia-utils, nvidia-smi",
                    "Conflicts": "nvidia-utils, nvidia-smi",
                    "Depends": f"{common}-{upstream}, libnvidia-compute-{end} (>= {upstream})",
                },
                {"/usr/bin/nvidia-smi": _SMI},
            ),
            Package(
                f"nvidia-compute-utils-{end}",
                version,
                {
                    "Provides": "nvidia-compute-utils, nvidia-persistenced",
                    "Conflicts": "nvidia-compute-utils, nvidia-persistenced",
                    "Depends": f"libnvidia-compute-{end}",
                },
                _daemon("nvidia-persistenced", version).files,
            ),
        ]
        fabric = {
            "Provides": "nvidia-fabricmanager",
            "Conflicts": "nvidia-fabricmanager",
            "Depends": f"{common}-{upstream}",
        }
        multiverse.append(_daemon(f"nvidia-fabricmanager-{branch}", version, fabric))
    for old, upstream, new in (("570", "570.211.01", "580"), ("590", "590.48.01", "595")):
        version = f"{upstream}-0ubuntu1.24.04.1"
        for name in (
            "nvidia-dkms-{}-server-open",
            "nvidia-dkms-{}-server",
            "libnvidia-compute-{}-server",
            "nvidia-utils-{}-server",
            "nvidia-compute-utils-{}-server",
            "nvidia-fabricmanager-{}",
        ):
            # As in noble-updates: nothing but its one dependency tells that it is empty.
            empty = Package(name.format(old), version, {"Depends": name.format(new)})
            (multiverse if "fabric" in name else restricted).append(empty)
    # The host that plays an Ubuntu has Debian's kernels.
    headers = Package("linux-headers-generic", "6.8.0-1", {"Depends": "linux-headers-amd64"})
    return {"main": [headers], "restricted": restricted, "multiverse": multiverse}
