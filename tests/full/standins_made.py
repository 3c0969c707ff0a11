"""Programs with engines' names, made on the machine of the tests, for roles to bring to hosts."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from farrier import tarballs, wheelhouse
from farrier.wheelhouse import Sources, Wheelhouse
from roles.ollama import DEFAULTS as OLLAMA
from roles.sglang import DEFAULTS as SGLANG
from roles.trtllm import DEFAULTS as TRTLLM
from tests.fakes.engine.packing import packed
from tests.fakes.ollama.packing import tarball
from tests.fakes.registry import python_image
from tests.fakes.wheels import building

__all__ = ["Made", "mirror"]


@dataclass
class Made:
    """What the roles bring, made on this machine: of Ollama and SGLang two versions."""

    directory: Path
    settings: list[dict[str, Any]] = field(default_factory=list)
    archive: str = ""
    asked: list[str] = field(default_factory=list)

    def make(self, mirror: str) -> None:
        """Make all of it; *mirror* serves the directory's ``mirror``."""
        # none of PyPI's own versions: of two wheels with one name pip takes the index's
        self.settings = [
            self._settings(
                mirror, *(f"{role.data()[f'{name}_version']}.post{number}" for name, role in _ROLES)
            )
            for number in (1, 2)
        ]
        image = self.directory / "tgi.tar"
        image.write_bytes(python_image({"/opt/standin/standin.py": packed()}).archive())
        self.archive = f"{image}@sha256:{hashlib.sha256(image.read_bytes()).hexdigest()}"

    def _settings(self, mirror: str, ollama: str, sglang: str, trtllm: str) -> dict[str, Any]:
        release = self.directory / "mirror" / f"v{ollama}" / "ollama-linux-amd64.tar.zst"
        release.parent.mkdir(parents=True)
        release.write_bytes(tarball(ollama))
        said: dict[str, Any] = {
            "ollama_version": ollama,
            "ollama_url": f"{mirror}/v{{version}}/{release.name}",
            "ollama_sha256": hashlib.sha256(release.read_bytes()).hexdigest(),
        }
        for project, version in ((building.SGLANG, sglang), (building.TRTLLM, trtllm)):
            thing = {"sglang": "sglang", "tensorrt-llm": "trtllm"}[project.name]
            home = self.directory / f"{thing}-{version}"
            made = building.wheel(project, version, home / "wheels")
            (home / "locks").mkdir()
            lock = building.lock(project, version, made)
            (home / "locks/cuda-cp311.txt").write_text(lock, encoding="utf-8")
            said |= {
                f"{thing}_version": version,
                f"{thing}_locks": str(home / "locks"),
                f"{thing}_find_links": [str(home / "wheels")],
            }
        return said

    def forget(self) -> None:
        """Take it out of the operator's cache, where nobody else wants it."""
        for said in self.settings:
            for kept in tarballs.cache_directory().glob(f"{said['ollama_sha256'][:16]}-*"):
                kept.unlink()
            for thing in ("sglang", "trtllm"):
                lock = Path(said[f"{thing}_locks"]) / "cuda-cp311.txt"
                name = f"{thing}-{said[f'{thing}_version']}-py3.11"
                key = Wheelhouse(name, lock, "3.11", Sources()).key
                (wheelhouse.cache_directory() / f"{name}-{key}.tar").unlink(missing_ok=True)


_ROLES = (("ollama", OLLAMA), ("sglang", SGLANG), ("trtllm", TRTLLM))


@contextmanager
def mirror(directory: Path, address: str, asked: list[str]) -> Iterator[str]:
    """Serves *directory* at the lab's bridge; its address. What is asked for is told *asked*."""

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            asked.append(self.path)

    directory.mkdir(parents=True, exist_ok=True)
    with ThreadingHTTPServer((address, 0), partial(Handler, directory=str(directory))) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        try:
            yield f"http://{address}:{server.server_port}"
        finally:
            server.shutdown()
