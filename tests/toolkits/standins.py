"""Stand-ins of the container toolkit and of CUDA toolkits, in repositories of their own.

Names, versions and relations are those of the real packages; what is in them are shell scripts
that say stand-in. ``nvidia-ctk`` does what the roles rely on, in the words of the real one's
documentation: writes a CDI specification of the loaded driver, links device nodes, writes the
files of container engines. It believes in the driver whose version stands in /etc/standin-driver.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.nvidia_repo import layout
from tests.fakes.nvidia_repo.debs import Package, build
from tests.fakes.nvidia_repo.serving import Server, serve_files
from tests.fakes.nvidia_repo.signing import Signer

__all__ = ["DRIVER", "Depot", "depot"]

DRIVER = "/etc/standin-driver/driver/nvidia/version"
"""What stands for /proc/driver/nvidia/version."""

_CTK = r"""#!/bin/sh
# Stand-in for nvidia-ctk VERSION.
driver() {
    sed -n 's/^NVRM version:.*Module  \([0-9.]*\) .*/\1/p' DRIVER 2>/dev/null | grep . ||
        { echo "failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND (stand-in)" >&2; exit 1; }
}
echo "$*" >> /var/log/standin-ctk
case "$*" in
    --version) echo "NVIDIA Container Toolkit CLI version VERSION (stand-in)";;
    "cdi generate --output="*)
        v=$(driver) || exit
        out=${3#--output=}; mkdir -p "${out%/*}"
        echo "hostPath: /usr/lib/libcuda.so.$v" > "$out";;
    "system create-dev-char-symlinks --create-all")
        v=$(driver) || exit
        for node in /dev/nvidia*; do
            [ ! -c "$node" ] ||
                ln -sf "$node" /dev/char/$(printf '%d:%d' $(stat -c '0x%t 0x%T' "$node"))
        done;;
    "runtime configure --runtime=docker") f=/etc/docker/daemon.json;;
    "runtime configure --runtime=containerd") f=/etc/containerd/conf.d/99-nvidia.toml;;
    *) echo "stand-in: unknown: $*" >&2; exit 1;;
esac
[ -z "$f" ] || { mkdir -p "${f%/*}"; echo '{"path": "nvidia-container-runtime"}' > "$f"; }
"""
_REFRESH = """\
# Stand-in.
[Service]
Type=oneshot
RemainAfterExit=yes
# As the real one's, which looks for the module among those of the kernel.
ExecCondition=/usr/bin/test -e DRIVER
ExecStart=/usr/bin/nvidia-ctk cdi generate --output=/run/cdi/nvidia.yaml
[Install]
WantedBy=multi-user.target
"""


def container_toolkit(version: str) -> Iterator[Package]:
    """Its four packages; since 1.18 with the unit that makes the CDI specification."""
    deb = f"{version}-1"
    same = {"Depends": f"libnvidia-container1 (>= {deb})"}
    files = {"/usr/bin/nvidia-ctk": _CTK.replace("VERSION", version).replace("DRIVER", DRIVER)}
    scripts = {}
    if int(version.split(".")[1]) >= 18:
        files["/usr/lib/systemd/system/nvidia-cdi-refresh.service"] = _REFRESH.replace(
            "DRIVER", DRIVER
        )
        scripts["postinst"] = (
            "systemctl daemon-reload\nsystemctl enable nvidia-cdi-refresh.service\n"
            "systemctl start nvidia-cdi-refresh.service || echo Warning >&2"
        )
        scripts["prerm"] = "systemctl disable --now nvidia-cdi-refresh.service"
    yield Package("nvidia-container-toolkit-base", deb, {}, files, scripts)
    yield Package("libnvidia-container1", deb)
    yield Package("libnvidia-container-tools", deb, {"Depends": f"libnvidia-container1 (= {deb})"})
    needs = f"nvidia-container-toolkit-base (= {deb}), libnvidia-container-tools (>= {deb})"
    yield Package("nvidia-container-toolkit", deb, {"Depends": f"{needs}, {same['Depends']}"})


def cuda_toolkit(version: str) -> Iterator[Package]:
    """The packages of one CUDA toolkit that matter here, and a driver beside them."""
    short = "-".join(version.split(".")[:2])
    branch = version.rpartition(".")[0]
    where, link = f"/usr/local/cuda-{branch}", "/usr/local/cuda"
    alternative = f"update-alternatives --install {link} cuda {where}"
    priority = short.replace("-", "")
    yield Package(
        f"cuda-nvcc-{short}",
        f"{version}-1",
        {"Depends": "tree"},  # something of the distribution's that was not there
        {f"{where}/bin/nvcc": f"#!/bin/sh\necho 'release {branch} (stand-in)'\n"},
    )
    yield Package("cuda-toolkit-config-common", f"{version}-1")
    yield Package(
        f"cuda-toolkit-{short}",
        f"{version}-1",
        {"Depends": f"cuda-nvcc-{short} (>= {version}), cuda-toolkit-config-common"},
        {f"{where}/version.json": f'{{"cuda": {{"version": "{version}"}}}}\n'},
        {
            "postinst": f"{alternative} {priority}",
            "prerm": f"update-alternatives --remove cuda {where}",
        },
    )


@dataclass(frozen=True)
class Depot:
    """The served repositories: *url* has a directory for each kind of key (good, wrong, …)."""

    url: str
    fingerprints: Mapping[str, str]
    server: Server

    def data(self, kind: str = "good") -> dict[str, object]:
        """The inventory's data that makes hosts use it, with the good key's fingerprint."""
        container, cuda = (f"{self.url}/{kind}/{where}" for where in ("deb/amd64", "cuda"))
        good = self.fingerprints["good"]
        shown = self.fingerprints["good" if kind == "forged" else kind]
        return {
            "nvidia_container_repo_url": container.replace("amd64", "{arch}"),
            "nvidia_container_repo_key_url": f"{container}/{shown[-8:].lower()}.pub",
            "nvidia_container_repo_fingerprint": good,
            "cuda_toolkit_repo_url": cuda,
            "cuda_toolkit_repo_fingerprint": good,
        }


@contextmanager
def depot(address: str) -> Iterator[Depot]:
    """Build, sign and serve everything on *address*."""
    work = Path(
        tempfile.mkdtemp(prefix="standin-", dir="/tmp")
    )  # gpg's socket has to have a short name
    signer = Signer(work / "gpg")
    server = None
    try:
        for where, packages in (
            ("deb/amd64", [*container_toolkit("1.17.8"), *container_toolkit("1.18.0")]),
            (
                "cuda",
                [
                    *cuda_toolkit("13.0.1"),
                    *cuda_toolkit("13.0.2"),
                    Package("libcuda1", "580.95.05-1"),
                    Package("cuda-toolkit-14-0", "14.0.0-1", {"Depends": "libcuda1"}),
                    Package("cuda-toolkit-14-1", "14.1.0-1", {"Depends": "hello (>= 99)"}),
                    Package("hello", "99.0-1", about="stand-in: must not win by itself"),
                ],
            ),
        ):
            built = [build(package, work / where.partition("/")[0]) for package in packages]
            layout.flat(work / "www", built, signer, where)
        server = serve_files(work / "www", address)
        keys = {kind: key.fingerprint for kind, key in signer.keys.items()}
        yield Depot(f"http://{address}:{server.port}", keys, server)
    finally:
        if server:
            server.stop()
        signer.stop()
        shutil.rmtree(work)
