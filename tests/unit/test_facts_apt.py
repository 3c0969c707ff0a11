"""apt's state, its sources and the keys of NVIDIA's: real scripts, real keys, real servers."""

from __future__ import annotations

import base64
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from farrier.facts.apt import Apt, AptFacts, AptSource, Sources, parse, parse_sources
from tests.fakes.nvidia_repo.signing import Signer
from tests.unit.recorded.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("gpg") / "home")


URIS = """\
'http://deb.debian.org/debian/dists/bookworm/InRelease' deb.debian.org_InRelease 0 
'http://deb.debian.org/debian/dists/bookworm/main/binary-amd64/Packages.xz' deb.debian.org_P 0 
'http://deb.debian.org/debian/dists/bookworm-updates/InRelease' deb.debian.org_u_InRelease 0 
'https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/InRelease' nv_InRelease 0 
'file:/srv/packages/InRelease' _srv_packages_InRelease 0 
"""  # noqa: W291 - apt-get's own
NVIDIA = "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64"


def apt_get(tree: Tree, uris: str = "", complaint: str = "") -> None:
    tree.write("said/uris", uris)
    tree.write("said/check", complaint)
    tree.program(
        "apt-get",
        f'case "$*" in *print-uris*) cat {tree.root}/said/uris;;'
        f" *check*) cat {tree.root}/said/check; [ ! -s {tree.root}/said/check ];; *) exit 9;; esac",
    )


def test_a_host_without_apt(tree: Tree) -> None:
    assert tree.ask(Apt) == AptFacts()


def test_sources_flat_ones_and_directories_among_them(tree: Tree) -> None:
    apt_get(tree, URIS)
    tree.program("sqv", "")
    assert tree.ask(Apt) == AptFacts(
        sources=(
            AptSource("file:/srv/packages", ("/",)),
            AptSource("http://deb.debian.org/debian", ("bookworm", "bookworm-updates")),
            AptSource(NVIDIA, ("/",)),
        ),
        sqv=True,
    )


UNMET = """\
You might want to run 'apt --fix-broken install' to correct these.
The following packages have unmet dependencies:
 nvidia-driver-cuda : Depends: libcuda1 (= 580.95.05-1) but 535.309.01-1 is installed
E: Unmet dependencies. Try 'apt --fix-broken install' with no packages (or specify a solution).
"""


def test_broken_dependencies(tree: Tree) -> None:
    apt_get(tree, complaint=UNMET)
    broken = tree.ask(Apt).broken
    assert "nvidia-driver-cuda : Depends: libcuda1" in broken
    assert broken.startswith("You might want")


def test_a_warning_is_not_broken() -> None:
    assert parse(["check W: Target Packages is configured multiple times"]).broken == ""
    assert parse(["check failed"]).broken == "apt-get check failed"


def test_interrupted(tree: Tree) -> None:
    tree.prints("dpkg", "")
    assert not tree.ask(Apt).interrupted
    tree.write("var/lib/dpkg/updates/0001")
    assert tree.ask(Apt).interrupted
    tree.prints("dpkg", "The following packages are only half configured: …\n nvidia-dkms\n")
    assert tree.ask(Apt).interrupted


def test_a_dpkg_at_work_is_busy_and_not_interrupted(tree: Tree) -> None:
    """The lock is a real one; what the kernel says of it is read from the real /proc."""
    tree.prints("dpkg", "The following packages are only half configured: …\n")
    lock = tree.write("var/lib/dpkg/lock-frontend")
    tree.link("proc/locks", "/proc/locks")
    with lock.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        found = tree.ask(Apt)
        assert found.busy
        assert not found.interrupted
    found = tree.ask(Apt)
    assert not found.busy
    assert found.interrupted


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list.d/cuda.list", "deb [arch=amd64 signed-by={key}] https://mirror/x /\n"),
        ("sources.list.d/a.list", f"deb [signed-by={{key}} arch=amd64] {NVIDIA}/ /\n"),
        ("sources.list", f"deb [signed-by={{key}}] {NVIDIA}/ /\n"),
        ("sources.list.d/a.sources", f"Types: deb\nURIs: {NVIDIA}/\nSigned-By: {{key}}\n"),
        ("sources.list.d/farrier-nvidia.sources", "URIs: http://mirror/\nsigned-by:   {key}\n"),
    ],
)
def test_the_keyring_of_a_source(tree: Tree, signer: Signer, name: str, text: str) -> None:
    key = tree.write("usr/share/keyrings/some.gpg", signer.keys["good"].armored)
    tree.write(f"etc/apt/{name}", text.format(key=key))
    tree.write("etc/apt/sources.list.d/other.list", f"deb [signed-by={tree.root}/x] http://y z\n")
    (found,) = tree.ask(Apt).keys
    assert found.path == str(key)
    assert found.fingerprint == signer.keys["good"].fingerprint
    assert found.expires is None
    assert not found.sha1_bound


def test_keys_that_are_expired_or_bound_with_sha1(tree: Tree, signer: Signer) -> None:
    both = signer.keys["expired"].armored + signer.keys["sha1"].armored
    tree.write("etc/apt/trusted.gpg.d/cuda-archive.asc", both)
    expired, weak = tree.ask(Apt).keys
    assert expired.expires == pytest.approx(1622505600, abs=86400)  # a year after 2020-06-01
    assert not expired.sha1_bound
    assert weak.sha1_bound


@pytest.mark.parametrize(
    "text",
    [
        "#deb [signed-by={key}] https://developer.download.nvidia.com/x /\n",
        "deb [signed-by={key}] https://deb.debian.org/debian bookworm main # not nvidia's\n",
    ],
)
def test_sources_of_others(tree: Tree, signer: Signer, text: str) -> None:
    key = tree.write("some.gpg", signer.keys["good"].armored)
    tree.write("etc/apt/sources.list", text.format(key=key))
    assert tree.ask(Apt).keys == ()


def test_a_keyring_that_is_none(tree: Tree) -> None:
    tree.write("etc/apt/trusted.gpg.d/nvidia.gpg", b"<html>captive portal</html>")
    tree.write("etc/apt/trusted.gpg.d/nvidia-empty.gpg")
    assert tree.ask(Apt).keys == ()
    assert parse(["keyring not-base64! /x", "keyring AAAA /x", "keyring"]).keys == ()
    assert parse([f"keyring {base64.b64encode(b'x' * 40).decode()} /x"]).keys == ()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    for name in ("dists/good/InRelease", "dists/old/Release", "flat/InRelease"):
        file = tmp_path / "www" / name
        file.parent.mkdir(parents=True)
        file.write_text("Origin: somebody\n")
    handler = partial(Quiet, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_which_sources_answer(tree: Tree, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real apt-helper; one server answers, one port is closed, one listener is mute."""
    monkeypatch.setattr("farrier.facts.apt.REACH_TIMEOUT", 2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        with socket.create_server(("127.0.0.1", 0)) as closing:
            closed = f"http://127.0.0.1:{closing.getsockname()[1]}"
        silent = f"http://127.0.0.1:{mute.getsockname()[1]}"
        addresses = [
            f"{server}/dists/good",
            f"{server}/dists/old",
            f"{server}/flat",
            f"{closed}/dists/x",
            f"{silent}/dists/x",
            "file:/srv/packages",
        ]
        apt_get(tree, "".join(f"'{address}/InRelease' name 0 \n" for address in addresses))
        found = {one.uri: one for one in tree.ask(Sources)}
    assert found[server].reachable
    assert sorted(found[server].suites) == ["good", "old"]
    assert found[f"{server}/flat"] == AptSource(f"{server}/flat", ("/",), True)
    assert found[closed].reachable is False
    assert "Connection refused" in found[closed].why
    assert found[silent].reachable is False
    assert found[silent].why
    assert found["file:/srv/packages"].reachable is None
    assert os.listdir(tree.roots.run) == []  # noqa: PTH208


def test_a_source_is_reached_if_all_of_its_suites_are() -> None:
    lines = [
        "reached http://a/dists/one",
        "unreached http://a/dists/two 404  Not Found",
        "reached http://a/dists/three",
    ]
    assert parse_sources(lines) == (
        AptSource("http://a", ("one", "two", "three"), False, "404  Not Found"),
    )


@pytest.mark.parametrize("line", ["", "source", "source ", "reached word", "unreached a b c"])
def test_lines_that_name_no_source(line: str) -> None:
    assert parse_sources([line]) == ()
