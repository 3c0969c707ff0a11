"""Role ``llama_cpp``: llama.cpp's llama-server, a directory per version. Runs nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, Directory, packages, tree
from farrier.converge.releases import Release, release
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULTS", "build_script", "is_pinned", "llama_cpp", "llama_cpp_release", "remove"]

DEFAULTS = Defaults(
    "llama_cpp",
    "llama-server under `/opt/farrier/llama_cpp/<version>`, known by the SHA-256 of its tarball:"
    " built once on each host from the sources that PyPI's llama-cpp-python carries, or unpacked"
    " from a release. The tarball is fetched once, on the operator's machine, and pushed.",
    (
        Default(
            "llama_cpp_version", "0.3.36", "The version, for the directory's name and the URL."
        ),
        Default(
            "llama_cpp_url",
            # As PyPI's index names it: mirrors have this form, and not the one by version.
            "https://files.pythonhosted.org/packages/ec/e9/"
            "e7de2b0463ea3ffbf0ede6cb21b58c1258a8f6521aae45ca773a59fe7cf3/"
            "llama_cpp_python-0.3.36.tar.gz",
            "The tarball: an address, or a path on the operator's machine; `{version}` in it is"
            " filled in. PyPI's page of the version has its address (Download files) beside its"
            " SHA-256.",
        ),
        Default(
            "llama_cpp_sha256",
            "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
            "Its SHA-256, 64 hexadecimal digits.",
        ),
        Default(
            "llama_cpp_from",
            "sources",
            "`sources`: llama-cpp-python's, built on the host; `release`: a tarball that has"
            " `llama-server` below one directory, as llama.cpp's own releases.",
        ),
        Default(
            "llama_cpp_cmake",
            [],
            "Further arguments of cmake, such as `-DGGML_BLAS=ON`. On hosts with GPUs"
            " `-DGGML_CUDA=ON` is among them, which needs `cuda_toolkit_version`.",
        ),
        Default(
            "llama_cpp_packages",
            ["cmake", "ninja-build", "g++"],
            "Debian packages that building takes.",
        ),
    ),
)

_NEEDS_MB = {"sources": 4000, "release": 1000}
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_pinned(settings: Mapping[str, Any]) -> bool:
    """Whether the inventory says which tarball is meant."""
    return _SHA256.fullmatch(str(settings["llama_cpp_sha256"])) is not None


def llama_cpp_release(settings: Mapping[str, Any], accelerator: str) -> Release:
    """The release that *settings* name, for hosts with this *accelerator*."""
    version = str(settings["llama_cpp_version"])
    built = settings["llama_cpp_from"] != "release"
    return Release(
        thing="llama_cpp",
        version=f"{version}-cuda" if built and accelerator == "cuda" else version,
        url=str(settings["llama_cpp_url"]).replace("{version}", version),
        sha256=str(settings["llama_cpp_sha256"]),
        program="bin/llama-server" if built else "llama-server",
        needs_mb=_NEEDS_MB["sources" if built else "release"],
        strip=1,
        build=build_script(accelerator, settings["llama_cpp_cmake"]) if built else "",
    )


def build_script(accelerator: str, further: list[str]) -> str:
    """The shell lines that build llama-server of ``$src`` into ``$out``."""
    options = [
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_SHARED_LIBS=OFF",
        "-DLLAMA_BUILD_TESTS=OFF",
        "-DLLAMA_BUILD_EXAMPLES=OFF",
        "-DLLAMA_BUILD_APP=OFF",
        "-DLLAMA_OPENSSL=OFF",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
        *(["-DGGML_CUDA=ON"] if accelerator == "cuda" else []),
        *further,
    ]
    words = " ".join(f"'{option}'" for option in options)
    # Beside engines that serve: the build takes what they leave.
    return f"""
export PATH="/usr/local/cuda/bin:$PATH"
nice -n 19 cmake -S "$src/vendor/llama.cpp" -B "$src/build" -G Ninja {words}
nice -n 19 cmake --build "$src/build" --target llama-server
install -D -m 755 "$src/build/bin/llama-server" "$out/bin/llama-server\""""


@deploy("llama.cpp")
def llama_cpp(accelerator: str) -> None:
    """Install the program; running engines keep the version they run."""
    settings = DEFAULTS.read(host.data)
    if settings["llama_cpp_from"] != "release":
        packages(name="Packages", names=settings["llama_cpp_packages"])
    tree(Directory("/opt/farrier/llama_cpp"), name="Directory")
    release(llama_cpp_release(settings, accelerator), name="Release")


@deploy("Remove llama.cpp")
def remove() -> None:
    """Take away every version."""
    tree(Absent("/opt/farrier/llama_cpp"), name="Releases")
