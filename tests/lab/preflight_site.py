"""A lab host that looks like a GPU host, to be broken: a tree of devices, and stand-in packages.

Nothing of it is NVIDIA's. The packages are built on the host with dpkg-deb and offered to the real
apt by a repository in a directory; the devices are files that ``roots`` of the inventory point at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import Lab

__all__ = ["HOST", "PREPARE", "SERVED", "TREE", "VERSION", "VLLM", "Look", "Site"]

ROOT = Path(__file__).parents[2]
FARRIER = Path(sys.executable).with_name("farrier")
HOST = "gpu01"
VERSION = "580.95.05"
TREE = "/srv/tree"

SERVED: dict[str, Any] = {
    "name": "served",
    "engine": "custom",
    "gpus": [0, 1],
    "command": ["/bin/serve", "{port}"],
}
VLLM: dict[str, Any] = {
    "name": "served",
    "source": "path:/srv/models/served",
    "gpus": [0, 1],
    "args": {"tensor-parallel-size": 2},
}

PREPARE = rf"""
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends ufw nftables needrestart unattended-upgrades
mkdir -p /etc/needrestart/conf.d
echo "\$nrconf{{restart}} = 'l';" > /etc/needrestart/conf.d/only-list.conf

# Two H100 and the driver's word that it is loaded.
for slot in 01 02; do
    d={TREE}/sys/bus/pci/devices/0000:$slot:00.0
    mkdir -p $d
    echo 0x10de > $d/vendor; echo 0x2330 > $d/device; echo 0x030200 > $d/class
done
mkdir -p {TREE}/proc/driver/nvidia {TREE}/proc/sys/kernel
echo "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {VERSION}  Release Build" \
    > {TREE}/proc/driver/nvidia/version
echo 6.1.0-56-amd64 > {TREE}/proc/sys/kernel/osrelease
echo 'MemTotal: 263000000 kB' > {TREE}/proc/meminfo

mkdir -p /srv/standins && cd /srv/standins
deb() {{ # NAME VERSION [DEPENDS]: what is in ./files becomes the package
    mkdir -p files/DEBIAN
    printf '%s\n' "Package: $1" "Version: $2" "Architecture: amd64" "Maintainer: nobody <n@x.org>" \
        ${{3:+"Depends: $3"}} "Description: stand-in for a test" > files/DEBIAN/control
    dpkg-deb -b files "$1_$2.deb"; rm -rf files
}}
library=files/usr/lib/x86_64-linux-gnu
mkdir -p $library; echo stand-in > $library/libcuda.so.{VERSION}
ln -s libcuda.so.{VERSION} $library/libcuda.so.1
deb libcuda1 {VERSION}-1
mkdir -p files/usr/bin
cat > files/usr/bin/nvidia-smi <<'END'
#!/bin/sh
echo "0, GPU-stand-in-0, Stand-in H100, 81559, 00000000:01:00.0"
echo "1, GPU-stand-in-1, Stand-in H100, 81559, 00000000:02:00.0"
END
chmod 755 files/usr/bin/nvidia-smi
deb nvidia-driver-cuda {VERSION}-1 libcuda1
mkdir -p files/usr/bin files/lib/systemd/system
printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' \
    > files/lib/systemd/system/nvidia-persistenced.service
deb nvidia-persistenced {VERSION}-1
mkdir -p files/lib/systemd/system files/usr/bin
printf '#!/bin/sh\necho "Fabric Manager version is : {VERSION}"\n' > files/usr/bin/nv-fabricmanager
chmod 755 files/usr/bin/nv-fabricmanager
printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' \
    > files/lib/systemd/system/nvidia-fabricmanager.service
cat > postinst <<'END'
#!/bin/sh
systemctl daemon-reload; systemctl enable --now nvidia-fabricmanager
END
mkdir -p files/DEBIAN; mv postinst files/DEBIAN/postinst; chmod 755 files/DEBIAN/postinst
deb nvidia-fabricmanager {VERSION}-1
mkdir -p files/lib/modules/6.1.0-99-amd64/build
touch files/lib/modules/6.1.0-99-amd64/build/Makefile
deb linux-headers-6.1.0-99-amd64 6.1.99-1
mkdir -p files/usr/sbin; printf '#!/bin/sh\n' > files/usr/sbin/dkms; chmod 755 files/usr/sbin/dkms
deb dkms 3.0.10-99
cat > postinst <<'END'
#!/bin/sh
[ ! -e /srv/stumble ]
END
mkdir -p files/DEBIAN; mv postinst files/DEBIAN/postinst; chmod 755 files/DEBIAN/postinst
deb standin-stumbles 1
deb standin-wants 1 nothing-has-this-name
mkdir -p files/usr/bin
cat > files/usr/bin/nvidia-ctk <<'END'
#!/bin/sh
case "$*" in
--version) echo "NVIDIA Container Toolkit CLI version 1.18.0";;
*--output=*)
    printf 'kind: nvidia.com/gpu\nhostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{VERSION}\n' \
        > "${{3#--output=}}";;
esac
END
chmod 755 files/usr/bin/nvidia-ctk
deb nvidia-container-toolkit 1.18.0-1

for f in *.deb; do
    dpkg-deb -f $f
    echo "Filename: ./$f"; echo "Size: $(stat -c%s $f)"
    echo "SHA256: $(sha256sum $f | cut -d' ' -f1)"
    echo
done > Packages
echo 'deb [trusted=yes] file:/srv/standins ./' > /etc/apt/sources.list.d/standins.list
apt-get update -q
apt-get install -y -q libcuda1 nvidia-driver-cuda nvidia-persistenced
systemctl daemon-reload; systemctl enable --now nvidia-persistenced
apt-mark hold libcuda1 nvidia-driver-cuda nvidia-persistenced
mkdir -p /etc/modprobe.d; echo 'blacklist nouveau' > /etc/modprobe.d/blacklist-nouveau.conf
"""


@dataclass(frozen=True)
class Look:
    """What ``farrier preflight --json`` said of the host."""

    status: int
    state: str
    reasons: tuple[dict[str, Any], ...]
    stderr: str = ""

    @property
    def codes(self) -> list[str]:
        """Of all its reasons."""
        return [reason["code"] for reason in self.reasons]

    def reason(self, code: str) -> dict[str, Any]:
        """The one reason called *code*."""
        found = [reason for reason in self.reasons if reason["code"] == code]
        assert len(found) == 1, self
        return found[0]


@dataclass
class Site:
    """The lab's host, and an operator who looks at it and repairs it."""

    lab: Lab
    directory: Path
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=lambda: SERVED)
    host: str = HOST

    def root(self, command: str, *, check: bool = True) -> str:
        """Type *command* into root's shell on the host."""
        done = self.lab.ssh(self.host, "sudo sh -s", input=command, check=False)
        if check and done.returncode:
            pytest.fail(f"{command}\nstatus {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """An operator's: the lab's inventory, and an ssh that knows its hosts."""
        models = self.directory / "models.py"
        data = {
            "accelerator": "cuda",
            "nvidia_driver_source": "none",
            "roots": {"sys": f"{TREE}/sys", "proc": f"{TREE}/proc"},
        } | self.data
        models.write_text(
            f"from farrier.spec import Model\n"
            f"models = {{{self.host!r}: [Model(**{self.model!r})]}}\n"
            f"data = {{{self.host!r}: {data!r}}}\n"
        )
        programs = self.directory / "bin"
        programs.mkdir(exist_ok=True)
        ssh = programs / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {self.lab.ssh_config} "$@"\n')
        ssh.chmod(0o755)
        return os.environ | {
            "FARRIER_ENV": "lab",
            "FARRIER_LAB": self.lab.name,
            "FARRIER_LAB_MODELS": str(models),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }

    def farrier(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``farrier WORDS`` in the project's directory, nobody at a terminal."""
        return self.run(str(FARRIER), *words)

    def deploy(self, file: str) -> subprocess.CompletedProcess[str]:
        """Run ``pyinfra -y inventory FILE``."""
        return self.run(str(FARRIER.with_name("pyinfra")), "-y", "inventory", file)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the project."""
        return subprocess.run(
            list(words),
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def look(self) -> Look:
        """``farrier preflight --json`` of the host."""
        done = self.farrier("preflight", "--json", self.host)
        try:
            (line,) = done.stdout.splitlines()
            told = json.loads(line)
        except ValueError:
            pytest.fail(f"status {done.returncode}\n{done.stdout}{done.stderr}")
        return Look(done.returncode, told["verdict"], tuple(told["reasons"]), done.stderr)

    def repair(self, reason: dict[str, Any]) -> None:
        """Type the repairing line, as it was printed, where it belongs."""
        if reason["where"] == "host":
            self.root(reason["repair"])
            return
        assert reason["where"] == "operator", reason
        done = subprocess.run(
            ["sh", "-c", reason["repair"]],
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
