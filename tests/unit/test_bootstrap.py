"""``scripts/bootstrap``: what it says without root, what it installs, what it repairs.

Each test gives a copy of the script a small project of its own: its lock holds one wheel made on
the spot, so nothing is fetched from anywhere.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
TOOLS = ("promtool", "prometheus", "amtool", "prometheus-node-exporter")


def write_wheel(folder: Path) -> str:
    """A wheel of one module, ``tiny``; its file name."""
    name = "tiny-1.0-py3-none-any.whl"
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr("tiny.py", "WORD = 'here'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n")
    return name


class Checkout:
    """A project with ``scripts/bootstrap`` in it, and a PATH that a test can take tools from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in Path("/usr/bin").iterdir():
            if tool.name != "sudo":
                (self.bin / tool.name).symlink_to(tool)
        self.give("python3", Path(sys.executable).resolve())
        self.give("uv", Path(sys.executable).parent / "uv")
        shutil.copytree(ROOT / "scripts", folder / "scripts")
        (folder / "pyproject.toml").write_text(
            '[project]\nname = "small"\nversion = "1"\nrequires-python = ">=3.11"\n'
            'dependencies = ["tiny"]\n'
            f'[tool.uv.sources]\ntiny = {{ path = "{write_wheel(folder)}" }}\n'
        )
        self.run("uv", "lock", "--offline", "--quiet").check_returncode()

    def give(self, name: str, program: Path) -> None:
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).symlink_to(program)

    def run(
        self, *argv: str, user: int | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        keep = {key: value for key, value in os.environ.items() if key in {"HOME", "LANG"}}
        return subprocess.run(
            argv,
            cwd=self.folder,
            env=keep | {"PATH": str(self.bin), "UV_OFFLINE": "1"} | env,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def bootstrap(
        self, *argv: str, user: int | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return self.run("scripts/bootstrap", *argv, user=user, **env)

    def word(self) -> str:
        return self.run(".venv/bin/python", "-c", "import tiny; print(tiny.WORD)").stdout.strip()


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    # Not tmp_path: its parents are closed to other users, and some tests are run as one.
    with TemporaryDirectory(prefix="farrier-bootstrap-") as name:
        Path(name).chmod(0o755)
        yield Checkout(Path(name))


@pytest.fixture
def stranger() -> int | None:
    """A user id without root's rights to run as; None where the tests have none themselves."""
    return NOBODY if os.geteuid() == 0 else None


def processor_seconds() -> float:
    """What all programs have used that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_pin_of_uv_is_the_locks() -> None:
    pin = (ROOT / "scripts/uv-requirements.txt").read_text()
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    (uv,) = (package for package in lock["package"] if package["name"] == "uv")
    assert re.findall(r"^uv==(\S+)", pin, re.MULTILINE) == [uv["version"]]
    files = [uv["sdist"], *uv["wheels"]]
    assert set(re.findall(r"--hash=(\S+)", pin)) == {file["hash"] for file in files}


def test_makes_the_environment_and_then_has_nothing_to_say(checkout: Checkout) -> None:
    first = checkout.bootstrap()
    assert first.returncode == 0, first.stderr
    assert "making .venv from uv.lock" in first.stdout
    assert checkout.word() == "here"

    start = processor_seconds()
    second = checkout.bootstrap()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    # The promise is 1 s where nothing else runs: other programs' time does not count here.
    assert processor_seconds() - start < 1.0


def test_a_package_cut_short_is_installed_again(checkout: Checkout) -> None:
    checkout.bootstrap()
    (module,) = checkout.folder.glob(".venv/lib/*/site-packages/tiny.py")
    module.unlink()  # what a kill between two files of a package leaves
    (checkout.folder / ".venv-tools/sync-unfinished").touch()
    again = checkout.bootstrap()
    assert again.returncode == 0, again.stderr
    assert "installing all of it again" in again.stdout
    assert checkout.word() == "here"
    assert not (checkout.folder / ".venv-tools/sync-unfinished").exists()


def test_an_environment_without_python_is_made_anew(checkout: Checkout) -> None:
    checkout.bootstrap()
    (checkout.folder / ".venv/bin/python").unlink()
    again = checkout.bootstrap()
    assert again.returncode == 0, again.stderr
    assert "no working Python" in again.stdout
    assert checkout.word() == "here"


def test_a_killed_run_is_repaired(checkout: Checkout) -> None:
    (checkout.bin / "uv").unlink()
    (checkout.bin / "uv").write_text(
        "#!/bin/sh\n"
        'case $1 in --version) echo "uv 99.0.0";; *) mkdir -p .venv/bin; kill -9 $PPID;; esac\n'
    )
    (checkout.bin / "uv").chmod(0o755)
    killed = checkout.bootstrap()
    assert killed.returncode == -9
    checkout.give("uv", Path(sys.executable).parent / "uv")
    again = checkout.bootstrap()
    assert again.returncode == 0, again.stderr
    assert checkout.word() == "here"


def test_an_old_uv_is_not_used_and_a_missing_index_is_named(checkout: Checkout) -> None:
    (checkout.bin / "uv").unlink()
    (checkout.bin / "uv").write_text("#!/bin/sh\necho uv 0.1.0\n")
    (checkout.bin / "uv").chmod(0o755)
    done = checkout.bootstrap(PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
    assert done.returncode == 1
    assert re.search(r"uv: installing \S+ into \.venv-tools/", done.stdout)
    assert "ERROR: No matching distribution found for uv==" in done.stderr
    assert ".venv-tools/uv/bin/python -m pip install -r scripts/uv-requirements.txt" in done.stderr
    assert "build/bootstrap/uv.log" in done.stderr


def test_a_lock_that_does_not_match_is_refused(checkout: Checkout) -> None:
    project = checkout.folder / "pyproject.toml"
    project.write_text(project.read_text().replace('["tiny"]', '["tiny", "another"]'))
    done = checkout.bootstrap()
    assert done.returncode == 1
    assert "uv could not make .venv from uv.lock" in done.stderr


def test_without_root_everything_missing_is_said_at_once(
    checkout: Checkout, stranger: int | None
) -> None:
    (checkout.bin / "mmdebstrap").unlink(missing_ok=True)
    (checkout.bin / "systemd-nspawn").unlink(missing_ok=True)
    done = checkout.bootstrap("--lab", user=stranger, FARRIER_TARGET="demo")
    assert done.returncode == 1
    assert "make demo cannot be run by user" in done.stderr
    missing = re.search(r"missing packages: (.*)", done.stderr)
    assert missing is not None
    assert {"mmdebstrap", "systemd-container"} <= set(missing[1].split())
    assert f"apt-get install --no-install-recommends {missing[1]}" in done.stderr
    assert "missing: root" in done.stderr
    assert "su -c 'make demo'" in done.stderr
    assert not (checkout.folder / ".venv").exists()


def test_without_root_a_foreign_checkout_names_its_owner(
    checkout: Checkout, stranger: int | None
) -> None:
    if stranger is None:
        checkout.folder.chmod(0o555)
    done = checkout.bootstrap(user=stranger)
    assert done.returncode == 1
    assert "cannot be written by" in done.stderr
    assert "its owner is" in done.stderr


def write_packages(folder: Path) -> None:
    """Packages like Debian's, which only ``apt-get download`` of this checkout's own can fetch."""
    (folder / "debs").mkdir()
    for name, tools in (
        ("prometheus", ("prometheus", "promtool")),
        ("others", ("amtool", "prometheus-node-exporter")),
    ):
        package = folder / name
        (package / "DEBIAN").mkdir(parents=True)
        (package / "usr/bin").mkdir(parents=True)
        (package / "lib").mkdir()
        (package / "lib/unit.service").touch()
        for tool in tools:
            (package / "usr/bin" / tool).write_text(f"#!/bin/sh\necho {tool}\n")
            (package / "usr/bin" / tool).chmod(0o755)
        (package / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: t <t@t>\nDescription: t\n"
        )
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", package, folder / "debs"],
            check=True,
            capture_output=True,
        )


def test_tools_of_tests_are_unpacked_and_not_installed(checkout: Checkout) -> None:
    for tool in TOOLS:
        (checkout.bin / tool).unlink(missing_ok=True)
    write_packages(checkout.folder)
    (checkout.bin / "apt-get").unlink(missing_ok=True)
    (checkout.bin / "apt-get").write_text(
        f'#!/bin/sh\n[ "$1" = download ] && cp {checkout.folder}/debs/*.deb .\n'
    )
    (checkout.bin / "apt-get").chmod(0o755)
    for proxy in ("nginx", "haproxy"):  # this machine may have them or not
        (checkout.bin / proxy).unlink(missing_ok=True)
        (checkout.bin / proxy).symlink_to("/bin/true")
    tools = checkout.folder / ".venv-tools/prometheus"

    assert checkout.bootstrap().returncode == 0
    assert not tools.exists()
    first = checkout.bootstrap("--tools")
    assert first.returncode == 0, first.stderr
    assert f"unpacking {' '.join(TOOLS)} into .venv-tools/prometheus/" in first.stdout
    assert checkout.run(str(tools / "usr/bin/promtool")).stdout == "promtool\n"
    assert {path.name for path in tools.rglob("*") if path.is_file()} == set(TOOLS)
    second = checkout.bootstrap("--tools")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_tools_that_cannot_be_fetched_are_named_with_the_next_command(checkout: Checkout) -> None:
    for tool in ("promtool", "apt-get"):
        (checkout.bin / tool).unlink(missing_ok=True)
    (checkout.bin / "apt-get").write_text("#!/bin/sh\necho E: no network >&2\nexit 100\n")
    (checkout.bin / "apt-get").chmod(0o755)
    done = checkout.bootstrap("--tools")
    assert done.returncode == 1
    assert "E: no network" in done.stderr
    assert "apt could not fetch prometheus prometheus-alertmanager" in done.stderr
    assert "apt-get update, then: make bootstrap" in done.stderr


def test_wrong_usage(checkout: Checkout) -> None:
    done = checkout.bootstrap("--everything")
    assert done.returncode == 2
    assert "usage: scripts/bootstrap [--lab] [--tools]" in done.stderr
