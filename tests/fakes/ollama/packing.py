"""A release tarball of the stand-in for Ollama, laid out as its own: bin/ollama, lib/ollama."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

__all__ = ["program", "tarball"]

_MAIN = """\
import sys
from ollama import ollama
ollama.VERSION = {version!r}
sys.exit(ollama.main(sys.argv[1:]))
"""


def program(version: str) -> bytes:
    """The program as one file, which the host's Python 3 runs; it says that *version* of itself."""
    buffer = io.BytesIO(b"#!/usr/bin/python3\n")
    buffer.seek(0, io.SEEK_END)
    fakes = Path(__file__).resolve().parents[1]
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted([*(fakes / "engine").glob("*.py"), *(fakes / "ollama").glob("*.py")]):
            archive.writestr(_entry(str(path.relative_to(fakes))), path.read_bytes())
        archive.writestr(_entry("__main__.py"), _MAIN.format(version=f"{version}-standin"))
    return buffer.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))


def tarball(version: str) -> bytes:
    """The release: compressed by zstd, as Ollama's own, where this machine has it; else by gzip."""
    buffer = io.BytesIO()
    files = {"bin/ollama": program(version), "lib/ollama/README": b"A stand-in has no runners.\n"}
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content))
    compressor = ["zstd"] if shutil.which("zstd") else ["gzip", "-n"]
    command = [*compressor, "-q", "-c"]
    return subprocess.run(command, input=buffer.getvalue(), stdout=-1, check=True).stdout
