"""Build, sign and serve the stand-in repositories until told to end.

Prints one line of JSON when it serves: ``url``, ``proxy``, ``behind_proxy``, ``fingerprints`` by
kind of key, ``debs`` (the directory with all .deb files for Debian). Then each line on standard
input is answered with a line of JSON, the URLs that the proxy was asked for since the last one.
Ends with standard input, and after ``--seconds`` in any case.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.fakes.nvidia_repo import catalogue, layout
from tests.fakes.nvidia_repo.debs import Deb, Package, build
from tests.fakes.nvidia_repo.serving import BEHIND_PROXY, serve_files, serve_proxy
from tests.fakes.nvidia_repo.signing import Signer


def _built(packages: Sequence[Package], directory: Path) -> list[Deb]:
    directory.mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(partial(build, directory=directory), packages))


def make(work: Path, signer: Signer) -> Path:
    """All repositories; returns the directory to be served."""
    root = work / "www"
    debian = _built(catalogue.for_debian(), work / "debian")
    for system in ("debian12", "debian13"):
        layout.flat(root, debian, signer, f"{system}/x86_64")
    layout.flat(root, _built(catalogue.for_ubuntu(), work / "ubuntu"), signer, "ubuntu2404/x86_64")
    archived = {
        component: _built(packages, work / component)
        for component, packages in catalogue.in_ubuntus_archive().items()
    }
    layout.archive(root, archived, signer, "noble")
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--seconds", type=int, default=1800)
    arguments = parser.parse_args()
    signal.alarm(arguments.seconds)
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    work = Path(tempfile.mkdtemp(prefix="standin-"))
    signer = Signer(work / "gpg")
    try:
        root = make(work, signer)
        files = serve_files(root, arguments.address)
        proxy = serve_proxy(root, arguments.address)
        said = {
            "url": f"http://{arguments.address}:{files.port}",
            "proxy": f"http://{arguments.address}:{proxy.port}",
            "behind_proxy": f"http://{BEHIND_PROXY}",
            "fingerprints": {kind: key.fingerprint for kind, key in signer.keys.items()},
            "debs": str(work / "debian" / "debs"),
        }
        print(json.dumps(said), flush=True)
        for _ in sys.stdin:
            asked, proxy.asked[:] = list(proxy.asked), []
            print(json.dumps(asked), flush=True)
    finally:
        signer.stop()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
