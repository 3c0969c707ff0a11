"""Kernels: the running one, the installed ones, and what a module needs to be built for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.facts.roots import Roots

__all__ = ["Kernel", "KernelFacts", "Kernels", "parse", "parse_dkms"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel with a directory in /lib/modules.

    *headers* says whether a module can be built for it, *image* whether it can be booted. *dkms*
    maps ``name/version`` of a DKMS module to its state for this kernel: ``added`` (not built),
    ``built`` (not installed), ``installed``, ``differs`` (installed, but another file than the one
    DKMS built) or ``broken``.
    """

    release: str
    headers: bool = False
    image: bool = False
    dkms: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """The kernels of this host, oldest first.

    *container* says that the host is one, so that its kernel is another machine's. *secure_boot*
    is None where it cannot be told; *mok_enrolled* says whether the key that DKMS signs with is
    known to the firmware, None where there is no such key or no mokutil. *nouveau_blacklisted*
    looks at modprobe's configuration and at the kernel's command line.
    """

    running: str = ""
    container: bool = False
    kernels: tuple[Kernel, ...] = ()
    nouveau_loaded: bool = False
    nouveau_blacklisted: bool = False
    secure_boot: bool | None = None
    mok_enrolled: bool | None = None
    dkms_installed: bool = False
    compiler: bool = False

    @property
    def newest(self) -> Kernel | None:
        """What the next boot will run: the newest with an image, else the newest there is."""
        bootable = [kernel for kernel in self.kernels if kernel.image]
        return max(bootable or self.kernels, key=lambda one: _order(one.release), default=None)

    def kernel(self, release: str) -> Kernel | None:
        """The kernel called *release*, None if it is not installed."""
        return next((one for one in self.kernels if one.release == release), None)


def _order(release: str) -> list[tuple[int, str]]:
    """Sort key of a release, numbers by value: 6.1.0-9 comes before 6.1.0-56."""
    parts = re.findall(r"[0-9]+|[^0-9]+", release)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


_SCRIPT = r"""
for f in "$RUN/systemd/container" "$RUN/.containerenv" "$PROC/1/root/.dockerenv"; do
    [ -e "$f" ] && { echo container; break; }
done
for d in "$MODULES"/*/; do
    [ -d "$d" ] || continue
    d=${d%/}; release=${d##*/}; headers=no image=no
    [ -e "$d/build/Makefile" ] && headers=yes
    for f in "$BOOT/vmlinuz-$release" "$BOOT/vmlinux-$release" "$d/vmlinuz"; do
        [ -e "$f" ] && image=yes
    done
    echo "installed $release $headers $image"
done
has dkms && { echo dkms-installed; dkms status 2>/dev/null | sed 's/^/dkms /'; }
# Debian 13's headers bring gcc-14 without a plain gcc.
for f in "$USR"/bin/cc "$USR"/bin/gcc* "$USR"/bin/*-linux-gnu-gcc* "$USR"/bin/clang; do
    [ -x "$f" ] && { echo compiler; break; }
done
[ -d "$SYS/module/nouveau" ] && echo nouveau
read -r line 2>/dev/null < "$PROC/cmdline" && echo "cmdline $line"
grep -hsE '^[[:space:]]*(blacklist|install|alias|options)[[:space:]]+nouveau([[:space:]]|$)' \
    "$ETC"/modprobe.d/*.conf "$RUN"/modprobe.d/*.conf "$USR"/lib/modprobe.d/*.conf |
    sed 's/^[[:space:]]*/modprobe /'
variable=$SYS/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
if [ -e "$variable" ]; then
    echo "secure-boot $(od -An -tu1 -j4 -N1 "$variable" 2>/dev/null)"
elif [ -d "$SYS/firmware" ] && [ ! -d "$SYS/firmware/efi" ]; then
    echo "secure-boot bios"
fi
if has mokutil; then
    for key in $(sed -n 's/^mok_certificate=//p' "$ETC"/dkms/framework.conf \
        "$ETC"/dkms/framework.conf.d/*.conf 2>/dev/null | tr -d "\"'") \
        "$VAR/lib/dkms/mok.pub" "$VAR/lib/shim-signed/mok/MOK.der"
    do
        [ -e "$key" ] && { echo "mok $(mokutil --test-key "$key" 2>&1)"; break; }
    done
fi; true
"""


class Kernels(FactBase[KernelFacts | None]):
    """:class:`KernelFacts`; None when the host did not answer."""

    def command(self, roots: Roots) -> str:
        """A few processes; dkms, itself a shell script, is the slowest."""
        return roots.shell() + _SCRIPT

    @staticmethod
    def default() -> KernelFacts | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> KernelFacts:
        """Parse what the script printed."""
        return parse(output)


def parse(output: Sequence[str]) -> KernelFacts:
    """Parse the script's lines; each begins with the word for what it tells."""
    words = {line.strip() for line in output if " " not in line.strip()}
    running = secure = ""
    installed: dict[str, tuple[bool, bool]] = {}
    dkms: list[str] = []
    blacklisted = False
    enrolled: bool | None = None
    for line in output:
        kind, _, rest = line.partition(" ")
        match kind:
            case "kernel":
                running = rest.strip()
            case "installed" if len(fields := rest.split()) == 3:
                installed[fields[0]] = fields[1] == "yes", fields[2] == "yes"
            case "dkms":
                dkms.append(rest)
            case "cmdline":
                blacklisted = blacklisted or _kept_out(rest)
            case "modprobe":
                blacklisted = blacklisted or bool(_KEEPS_OUT.match(rest))
            case "secure-boot":
                secure = rest.strip()
            case "mok":
                enrolled = _enrolled(rest)
    container = "container" in words
    states = parse_dkms(dkms)
    anywhere = states.get("", {})
    return KernelFacts(
        running,
        container,
        tuple(
            Kernel(release, headers, image, {**anywhere, **states.get(release, {})})
            for release, (headers, image) in sorted(
                installed.items(), key=lambda item: _order(item[0])
            )
        ),
        "nouveau" in words,
        blacklisted,
        # A container may be kept from seeing the firmware.
        {"1": True, "0": False, "bios": None if container else False}.get(secure),
        enrolled,
        "dkms-installed" in words,
        "compiler" in words,
    )


# dkms 2: "nvidia, 470.57.02, 5.10.0-8-amd64, x86_64: installed (WARNING! Diff between …)"; dkms 3:
# "nvidia/470.57.02, 5.10.0-8-amd64, x86_64: installed"; not built anywhere: "nvidia/470: added".
_DKMS = re.compile(
    r"(?P<name>[^,/:\s]+)(?:/|, )(?P<version>[^,:\s]+)(?:, (?P<kernel>[^,:]+), [^,:]+)?:"
    r" (?P<state>added|built|installed|broken)\b(?P<remark>.*)"
)


def parse_dkms(lines: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """``dkms status``: kernel -> ``name/version`` -> state; "" is for no particular kernel."""
    states: dict[str, dict[str, str]] = {}
    for line in lines:
        if match := _DKMS.fullmatch(line.strip()):
            state = "differs" if "WARNING! Diff" in match["remark"] else match["state"]
            module = f"{match['name']}/{match['version']}"
            states.setdefault(match["kernel"] or "", {})[module] = state
    return states


_KEEPS_OUT = re.compile(
    r"blacklist\s+nouveau\b|install\s+nouveau\s+(/usr)?/bin/(false|true)\b|alias\s+nouveau\s+off\b"
    r"|options\s+nouveau\s+(.*\s)?modeset=0\b"
)


def _kept_out(cmdline: str) -> bool:
    for word in cmdline.split():
        name, _, value = word.partition("=")
        if name.replace("-", "_") in {"modprobe.blacklist", "module_blacklist"}:
            if "nouveau" in value.split(","):
                return True
        elif word in {"nouveau.modeset=0", "nouveau.blacklist=1"}:
            return True
    return False


def _enrolled(said: str) -> bool | None:
    """What ``mokutil --test-key`` says; its exit status differs between releases."""
    if "is already enrolled" in said:
        return True
    return False if "not enrolled" in said or "enrollment request" in said else None
