"""An image of one layer: Python as this machine has it, and files of a test's own."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

__all__ = ["Image", "python_image"]

PYTHON = Path("/usr/bin/python3")
_DOCKER = "application/vnd.docker"


@dataclass(frozen=True)
class Image:
    """An image whose only layer is the tar archive *layer*."""

    layer: bytes

    @cached_property
    def config(self) -> bytes:
        """Its configuration, whose hash is its ID."""
        diff = hashlib.sha256(self.layer).hexdigest()
        return _json(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": ["PATH=/usr/bin"], "Entrypoint": ["/nothing/that/is/there"]},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
            }
        )

    @cached_property
    def manifest(self) -> bytes:
        """What a registry knows it by."""
        return _json(
            {
                "schemaVersion": 2,
                "mediaType": f"{_DOCKER}.distribution.manifest.v2+json",
                "config": _blob(f"{_DOCKER}.container.image.v1+json", self.config),
                "layers": [_blob(f"{_DOCKER}.image.rootfs.diff.tar", self.layer)],
            }
        )

    @property
    def digest(self) -> str:
        """Of its manifest, in hex."""
        return hashlib.sha256(self.manifest).hexdigest()

    def archive(self, *others: Image) -> bytes:
        """What ``docker save`` writes of it, and of *others* with it."""
        files: dict[str, bytes] = {}
        entries = []
        for number, image in enumerate((self, *others)):
            config = f"{hashlib.sha256(image.config).hexdigest()}.json"
            layer = f"{hashlib.sha256(image.layer).hexdigest()}.tar"
            files |= {config: image.config, layer: image.layer}
            tags = [f"localhost/standin:{number}"]
            entries.append({"Config": config, "RepoTags": tags, "Layers": [layer]})
        return _tar({**files, "manifest.json": _json(entries)})


def python_image(files: Mapping[str, bytes]) -> Image:
    """An image with ``/usr/bin/python3`` and *files*, by their absolute paths."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name in ("bin", "lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            layer.addfile(link)
        for directory in ("tmp", "run", "var", "var/tmp", "proc", "sys", "dev", "etc"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(entry)
        for path in _python():
            # by its name, with what a link leads to: a layer of its own has no other half
            layer.add(path.resolve(), arcname=_usr(path), recursive=False)
        for name, content in files.items():
            _add(layer, name.lstrip("/"), content)
    return Image(buffer.getvalue())


def _python() -> Iterator[Path]:
    """The interpreter, its library, and what both are linked with."""
    program = PYTHON.resolve()
    yield PYTHON
    library = Path("/usr/lib", program.name)
    modules = sorted(library.glob("lib-dynload/*.so"))
    for path in sorted(library.rglob("*")):
        skipped = {"__pycache__", "test", "tests", "idlelib", "ensurepip", "lib2to3", "tkinter"}
        if path.is_file() and not skipped & set(path.parts):
            yield path
    linked = subprocess.run(
        ["ldd", str(program), *map(str, modules)], capture_output=True, text=True, check=False
    )
    words = {word for word in linked.stdout.split() if word.startswith("/")}
    yield from (Path(word) for word in sorted(words) if not word.endswith(":"))


def _usr(path: Path) -> str:
    name = str(path).lstrip("/")
    return name if name.startswith("usr/") else f"usr/{name}"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o755
    archive.addfile(entry, io.BytesIO(content))


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            _add(archive, name, content)
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _blob(kind: str, content: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": kind, "size": len(content), "digest": digest}
