"""The role llama_cpp: its command, and a real build by cmake and ninja of a small stand-in source.

llama.cpp itself has 206 steps to its server: that is no unit test.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from farrier.converge.releases import Release, unpack_script
from farrier.preflight.wanted import wanted
from farrier.spec import OPEN_ACCESS, HostSpec, Model, read_host
from roles import engine
from roles import llama_cpp as role
from roles.engine.commands import argv

CUDA = HostSpec("gpu01", groups=("gpu",))
SETTINGS = engine.DEFAULTS.data()
FIELDS: dict[str, Any] = {
    "name": "small",
    "engine": "llama_cpp",
    "source": "path:/srv/models/small.gguf",
    "gpus": [0],
}
SERVER = "/opt/farrier/llama_cpp/0.3.36-cuda-01234567/bin/llama-server"
MAKE = """
cmake_minimum_required(VERSION 3.14...3.28)
project(x C)
add_executable(llama-server main.c)
set_target_properties(llama-server PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
"""


def problems(**fields: Any) -> dict[str, str]:
    data = {"models": [Model(**FIELDS | fields)], "open_access": OPEN_ACCESS}
    return {one.field: one.message for one in read_host("gpu01", ["gpu"], data)[1]}


def test_it_is_started_with_its_flags_on_loopback() -> None:
    model = Model(**FIELDS, args={"ctx-size": 4096, "no-webui": True})
    assert argv(model, CUDA, SETTINGS, SERVER) == [
        *(SERVER, "--model", "/srv/models/small.gguf", "--alias", "small"),
        *("--host", "127.0.0.1", "--port", "8101", "--metrics"),
        *("--ctx-size", "4096", "--no-webui"),
    ]
    own = Model(**FIELDS, command=["/opt/mine/llama-server", "--port", "{port}"])
    assert argv(own, CUDA, SETTINGS, SERVER) == ["/opt/mine/llama-server", "--port", "8101"]


def test_what_the_inventory_may_say_and_what_not() -> None:
    assert problems() == problems(args={"ctx-size": 1}) == {}
    assert "Farrier sets this itself" in problems(args={"host": "::"})["models[0].args.host"]
    assert "models[0].args.api-key" in problems(args={"api-key": "x"})
    own = {"command": ["/x/llama-server", "--metrics", "--host={host}", "--port={port}"]}
    assert problems(**own) == {}
    assert "takes its flags in command" in problems(**own, args={"ctx-size": 1})["models[0].args"]


def test_the_program_is_known_by_its_hash_and_by_how_it_is_built() -> None:
    settings = role.DEFAULTS.data()
    cuda, cpu = (role.llama_cpp_release(settings, kind) for kind in ("cuda", "cpu"))
    assert cuda.path != cpu.path
    assert "'-DGGML_CUDA=ON'" in cuda.build
    assert "CUDA=ON" not in cpu.build
    other = role.llama_cpp_release(settings | {"llama_cpp_cmake": ["-DGGML_BLAS=ON"]}, "cpu")
    assert other.path != cpu.path
    ready = role.llama_cpp_release(settings | {"llama_cpp_from": "release"}, "cuda")
    assert (ready.build, ready.program) == ("", "llama-server")
    spec = HostSpec("gpu01", groups=("gpu",), models=(Model(**FIELDS),))
    (program,) = wanted(spec, {}).programs
    assert (program.name, program.path) == ("llama_cpp 0.3.36-cuda", cuda.path)
    assert program.pinned


def sources(path: Path, program: str) -> str:
    """A tarball laid out as llama-cpp-python's; its SHA-256."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in (("CMakeLists.txt", MAKE), ("main.c", program)):
            info = tarfile.TarInfo(f"llama_cpp_python-1.0/vendor/llama.cpp/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("program", "built"), [("int main(void) { return 7; }", True), ("int main(void) {", False)]
)
def test_sources_are_built_or_nothing_is_left(tmp_path: Path, program: str, built: bool) -> None:
    digest = sources(tmp_path / "a.tar.gz", program)
    build = role.build_script("cpu", ["-DLLAMA_CURL=OFF"])
    wanted = Release(
        *("llama_cpp", "1.0", "", digest, "bin/llama-server", 1),
        strip=1,
        build=build,
        root=str(tmp_path / "opt"),
    )
    script = unpack_script(wanted, str(tmp_path / "a.tar.gz"))
    tools = Path(sys.executable).parent  # where the development's cmake and ninja are
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == built, done.stderr
    there = {path.name for path in (tmp_path / "opt/llama_cpp").iterdir()}
    assert there == ({wanted.name, "current"} if built else set())
    if built:
        server = Path(wanted.path) / "bin/llama-server"
        assert subprocess.run([server], check=False).returncode == 7
    else:
        assert "error" in done.stderr
