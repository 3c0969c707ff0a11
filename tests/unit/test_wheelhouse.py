"""Wheelhouses filled by the real pip, from wheels made on the spot; no network."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from farrier.converge import environments
from farrier.converge.environments import Environment
from farrier.wheelhouse import (
    UV_LOCK,
    Sources,
    Wheelhouse,
    WheelhouseError,
    digest,
    fill,
    project_files,
    split_lock,
)
from roles import vllm


@pytest.fixture(autouse=True)
def pip_knows_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """pip with an index of its own that is empty, and nothing of this machine's configuration."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    index = tmp_path / "empty-index"
    index.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", index.as_uri())
    monkeypatch.setenv("PIP_RETRIES", "0")
    return index


METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


def _digest(text: str) -> str:
    """As a wheel's RECORD has it (PEP 376)."""
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True)
class Shelf:
    """A directory of wheels (``--find-links``), and locks for them."""

    wheels: Path
    locks: Path

    def add(self, name: str, version: str = "1.0", tag: str = "py3-none-any") -> str:
        """Make a wheel with one module; returns its line of a lock."""
        stem = f"{name}-{version}"
        files = {
            f"{name}.py": f"VERSION = {version!r}\n",
            f"{stem}.dist-info/METADATA": METADATA.format(name=name, version=version),
            f"{stem}.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        }
        record = f"{stem}.dist-info/RECORD"
        lines = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in files.items()]
        path = self.wheels / f"{stem}-{tag}.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for inside, text in files.items():
                wheel.writestr(inside, text)
            wheel.writestr(record, "\n".join([*lines, f"{record},,\n"]))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return f"{name}=={version} \\\n    --hash=sha256:{sha256}\n"

    def lock(self, *lines: str, name: str = "cp311.txt") -> Path:
        path = self.locks / name
        path.write_text("# made for a test\n" + "".join(lines))
        return path

    def wheelhouse(self, *lines: str, **more: object) -> Wheelhouse:
        installer = self.lock(self.add("uv", "0.0.1"), name="uv.txt")
        given = {"sources": Sources(find_links=(str(self.wheels),)), **more}
        return Wheelhouse("thing-1.0", self.lock(*lines), "3.11", installer=installer, **given)  # type: ignore[arg-type]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    it = Shelf(tmp_path / "wheels", tmp_path / "locks")
    it.wheels.mkdir()
    it.locks.mkdir()
    return it


def names(archive: Path) -> set[str]:
    with tarfile.open(archive) as tar:
        return {member.name.removeprefix("./") for member in tar if member.isfile()}


def test_an_archive_has_the_wheels_the_lock_and_uv(shelf: Shelf, tmp_path: Path) -> None:
    wheelhouse = shelf.wheelhouse(
        shelf.add("one"),
        shelf.add("two", tag="cp311-cp311-linux_x86_64".replace("linux", "manylinux_2_28")),
    )
    archive = fill(wheelhouse, tmp_path / "cache")
    assert archive.name == f"thing-1.0-{wheelhouse.key}.tar"
    assert names(archive) == {
        "one-1.0-py3-none-any.whl",
        "two-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "uv-0.0.1-py3-none-any.whl",
        "requirements.txt",
    }
    with tarfile.open(archive) as tar:
        lock = tar.extractfile("./requirements.txt")
        assert lock is not None
        assert lock.read() == wheelhouse.lock.read_bytes()
    # What is in the cache is not downloaded again.
    for wheel in shelf.wheels.iterdir():
        wheel.unlink()
    heard: list[str] = []
    assert fill(wheelhouse, tmp_path / "cache", say=heard.append) == archive
    assert heard == []


def test_hosts_that_want_the_same_at_once_share_one_download(shelf: Shelf, tmp_path: Path) -> None:
    wheelhouse = shelf.wheelhouse(shelf.add("one"))
    heard: list[str] = []
    found: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(fill(wheelhouse, tmp_path / "cache", say=heard.append))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert [line.partition(" ")[0] for line in heard] == ["downloading", "downloaded"]


def test_another_process_that_wants_the_same_waits(shelf: Shelf, tmp_path: Path) -> None:
    wheelhouse = shelf.wheelhouse(shelf.add("one"))
    program = (
        "import sys; from pathlib import Path; from farrier.wheelhouse import *;"
        "print(fill(Wheelhouse('thing-1.0', Path(sys.argv[1]), '3.11',"
        " Sources(find_links=(sys.argv[2],)), installer=Path(sys.argv[3])), Path(sys.argv[4]),"
        " say=lambda said: print(said)))"
    )
    argv = [sys.executable, "-c", program, str(wheelhouse.lock), str(shelf.wheels),
            str(wheelhouse.installer), str(tmp_path / "cache")]  # fmt: skip
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0][-1] == said[1][-1]
    assert sorted(len(lines) for lines in said) == [1, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda _shelf, it: replace(it, python="3.12"),
        lambda shelf, it: replace(it, lock=shelf.lock(shelf.add("two"))),
        lambda shelf, it: replace(it, installer=shelf.lock("uv==2 \\\n", name="uv.txt")),
    ],
)
def test_the_key_names_the_content(shelf: Shelf, change: object) -> None:
    before = shelf.wheelhouse(shelf.add("one"))
    key = before.key
    assert change(shelf, before).key != key  # type: ignore[operator]


def test_sources_are_not_content(shelf: Shelf) -> None:
    """Hashes are locked: where a wheel came from does not matter."""
    it = shelf.wheelhouse(shelf.add("one"))
    assert replace(it, sources=Sources("https://mirror.invalid/simple")).key == it.key


def test_a_wheel_with_another_hash_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    line = shelf.add("one").replace("sha256:", "sha256:0000")[:-5] + "\n"
    with pytest.raises(WheelhouseError, match="could not be downloaded"):
        fill(shelf.wheelhouse(line), tmp_path / "cache")
    left = [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]
    assert left == []


def test_a_wheel_that_is_for_another_python_only(shelf: Shelf, tmp_path: Path) -> None:
    wheelhouse = shelf.wheelhouse(shelf.add("two", tag="cp313-cp313-manylinux_2_28_x86_64"))
    with pytest.raises(WheelhouseError) as caught:
        fill(wheelhouse, tmp_path / "cache")
    told = ["two==1.0", "find_links", "run the deploy again"]
    assert [words for words in told if words not in str(caught.value)] == []
    # A failure leaves nothing that would be taken for an archive: it is simply tried again.
    again = fill(replace(wheelhouse, python="3.13"), tmp_path / "cache")
    assert "two-1.0-cp313-cp313-manylinux_2_28_x86_64.whl" in names(again)


def index_of(directory: Path, wheel: Path) -> str:
    """A package index (PEP 503) in *directory* that has only *wheel*; returns its URL."""
    page = directory / wheel.name.partition("-")[0]
    page.mkdir(parents=True)
    (page / "index.html").write_text(f'<a href="{wheel.as_uri()}">{wheel.name}</a>')
    return directory.as_uri()


def test_a_package_with_an_index_of_its_own(shelf: Shelf, tmp_path: Path) -> None:
    """As torch's CPU build: from find-links where they have it, else from its own index."""
    line = shelf.add("torch", "2.0+cpu")
    wheel = shelf.wheels / "torch-2.0+cpu-py3-none-any.whl"
    own = index_of(tmp_path / "own", wheel.rename(tmp_path / wheel.name))
    wheelhouse = shelf.wheelhouse(line)
    elsewhere = replace(wheelhouse.sources, own_index=(("torch", "file:///nowhere"),))
    with pytest.raises(WheelhouseError, match=r"torch.*from file:///nowhere, nor from find-links"):
        fill(replace(wheelhouse, sources=elsewhere), tmp_path / "cache")
    sources = replace(wheelhouse.sources, own_index=(("torch", own),))
    assert wheel.name in names(fill(replace(wheelhouse, sources=sources), tmp_path / "cache"))
    (tmp_path / wheel.name).rename(wheel)
    assert wheel.name in names(fill(replace(wheelhouse, sources=elsewhere), tmp_path / "another"))


def test_a_project_of_ours_is_built_and_packed(shelf: Shelf, tmp_path: Path) -> None:
    project = project_with_a_backend(tmp_path / "ours")
    archive = fill(shelf.wheelhouse(shelf.add("one"), source=project), tmp_path / "cache")
    assert "source/ours-1.0-py3-none-any.whl" in names(archive)


def test_another_source_file_is_another_wheelhouse(shelf: Shelf, tmp_path: Path) -> None:
    project = project_with_a_backend(tmp_path / "ours")
    wheelhouse = shelf.wheelhouse(shelf.add("one"), source=project)
    key = wheelhouse.key
    (project / "README.md").write_text("words")
    assert wheelhouse.key == key
    (project / "ours" / "code.py").write_text("A = 2\n")
    changed = wheelhouse.key
    assert changed != key
    (project / "ours" / "more.py").write_text("")
    assert wheelhouse.key not in {key, changed}


def test_a_project_that_cannot_be_built(shelf: Shelf, tmp_path: Path) -> None:
    project = project_with_a_backend(tmp_path / "ours")
    (project / "backend.py").write_text("raise SystemExit('no backend today')\n")
    with pytest.raises(WheelhouseError, match="ours"):
        fill(shelf.wheelhouse(shelf.add("one"), source=project), tmp_path / "cache")


BACKEND = """\
import pathlib, zipfile

WHEEL = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"

def build_wheel(where, config_settings=None, metadata_directory=None):
    name = "ours-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(where) / name, "w") as wheel:
        inside = "ours-1.0.dist-info/"
        wheel.writestr(inside + "METADATA", "Metadata-Version: 2.1\\nName: ours\\nVersion: 1.0\\n")
        wheel.writestr(inside + "WHEEL", WHEEL)
        wheel.writestr(inside + "RECORD", "")
    return name
"""


def project_with_a_backend(where: Path) -> Path:
    """A project that builds itself: no build requirement has to be fetched from anywhere."""
    (where / "ours").mkdir(parents=True)
    (where / "ours" / "code.py").write_text("A = 1\n")
    (where / "backend.py").write_text(BACKEND)
    (where / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "ours"\nversion = "1.0"\n'
    )
    return where


def test_split_lock() -> None:
    text = (
        "# a comment\n--index-url https://x.invalid\n"
        "Jinja2==3.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via vllm\n"
        "torch==2.13.0+cpu \\\n    --hash=sha256:cc\n"
    )
    assert split_lock(text) == {
        "jinja2": "Jinja2==3.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n",
        "torch": "torch==2.13.0+cpu \\\n    --hash=sha256:cc\n",
    }


def test_no_requirement_of_our_own_locks_is_lost() -> None:
    locks = [UV_LOCK, *sorted(vllm.LOCKS.glob("*.txt"))]
    assert len(locks) > 3
    for lock in locks:
        text = lock.read_text()
        blocks = "".join(split_lock(text).values())
        assert blocks.count("==") == text.count("=="), lock
        assert blocks.count("--hash=") == text.count("--hash="), lock


def test_digest_depends_on_names_contents_and_words(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("1")
    b.write_text("1")
    every = [digest([a]), digest([b]), digest([a, b]), digest([a], "x"), digest([a], "x", "y")]
    assert len(set(every)) == len(every)
    assert digest([a]) == digest([a])


def test_the_files_of_a_project(tmp_path: Path) -> None:
    project = project_with_a_backend(tmp_path / "ours")
    (project / "dist").mkdir()
    (project / "dist" / "old.py").write_text("")
    found = [str(path.relative_to(project)) for path in project_files(project)]
    assert found == ["ours/code.py", "pyproject.toml"]
    assert project_files(None) == []


def environment(shelf: Shelf, **more: object) -> Environment:
    locks = (("3.11", shelf.lock("a==1\n")), ("3.13", shelf.lock("a==2\n", name="cp313.txt")))
    return Environment(thing="x", release="1.0", locks=locks, needs_mb=1, **more)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def a_run_of_its_own() -> None:
    """Within one run a version stays what it was, see farrier/converge/environments.py."""
    environments._version.cache_clear()


def test_an_environments_version_says_what_it_is_made_of(shelf: Shelf, tmp_path: Path) -> None:
    project = project_with_a_backend(tmp_path / "ours")
    plain = environment(shelf).version
    assert plain.startswith("1.0-")
    assert environment(shelf).path == f"/opt/farrier/x/{plain}"
    seen = {plain, environment(shelf, source=project).version}
    seen.add(environment(shelf, paths=("/usr/lib/python3/dist-packages",)).version)
    (project / "ours" / "code.py").write_text("A = 2\n")
    environments._version.cache_clear()
    seen.add(environment(shelf, source=project).version)
    assert len(seen) == 4


def test_an_environments_version_is_the_same_for_every_host_and_mirror(shelf: Shelf) -> None:
    first = environment(shelf)
    assert replace(first, sources=Sources("https://mirror.invalid")).version == first.version
    assert replace(first, needs_mb=99).version == first.version
    shelf.lock("a==3\n", name="cp313.txt")
    environments._version.cache_clear()
    assert first.version != replace(first, release="1.1").version
    assert first.version.split("-")[1] == replace(first, release="1.1").version.split("-")[1]
