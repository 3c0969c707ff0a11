"""A Python environment on a host, filled from a pushed wheelhouse: no index, no compiler, no pip.

An environment lives at ``/opt/farrier/<thing>/<version>`` and never changes once it is complete;
``current`` names the newest. The version ends with the first digits of what it was made from, so
that another lock is another directory and a running engine's files are never touched. A file
``.complete`` is written last: without it the directory is a half-built one and is made anew.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host
from pyinfra.api import FactBase
from pyinfra.api.command import PyinfraCommand

from farrier.converge.commands import Refuse, Script, in_words, last_lines, tell_failure
from farrier.converge.pushing import push
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation
from farrier.wheelhouse import (
    NO_SOURCES,
    UV_LOCK,
    Sources,
    Wheelhouse,
    WheelhouseError,
    digest,
    fill,
    project_files,
)

if TYPE_CHECKING:
    from pyinfra.api import Host, State

    from farrier.converge.commands import Commands

__all__ = ["Environment", "EnvironmentStates", "environment"]

ROOT = "/opt/farrier"


@dataclass(frozen=True, slots=True)
class Environment:
    """What an environment is made of.

    *locks* maps a host's Python (``3.11``) to the lock for it. *source* is a project of ours that
    is built and installed on top. *paths* are directories of the host's own Python to be seen from
    inside, one ``.pth`` line each. *needs_mb* is the free space in /opt that building it takes.
    *service*: a program of ours that only the present version of is kept, with its byte code;
    False for an engine, whose units say which versions are in use.
    """

    thing: str
    release: str
    locks: tuple[tuple[str, Path], ...]
    needs_mb: int
    sources: Sources = NO_SOURCES
    source: Path | None = None
    paths: tuple[str, ...] = ()
    service: bool = False

    @property
    def version(self) -> str:
        """``release-digits``; the same on every host, whatever its Python."""
        return _version(self)

    @property
    def path(self) -> str:
        """Where it lives on the host."""
        return f"{ROOT}/{self.thing}/{self.version}"


@cache
def _version(environment: Environment) -> str:
    """Once per run: all hosts get the same, whoever edits the source meanwhile."""
    files = [lock for _, lock in environment.locks]
    if environment.source:
        files += project_files(environment.source)
    return f"{environment.release}-{digest([*files, UV_LOCK], *environment.paths)[:8]}"


@dataclass(frozen=True, slots=True)
class EnvironmentState:
    """The host's Python, the Python that the environment was completed with, what is current.

    *free_mb* is free on the disk that is mounted at *disk* and holds the environment.
    """

    python: str
    completed: str
    current: str
    free_mb: int
    disk: str


class EnvironmentStates(FactBase[EnvironmentState | None]):
    """The state of the environment at *path*; None when the host could not be asked."""

    def command(self, path: str) -> str:
        """One shell."""
        complete, parent = shlex.quote(f"{path}/.complete"), shlex.quote(f"{Path(path).parent}")
        return (
            # Debian's python3 is a link to its version: read, it need not be started.
            'p=$(readlink -e /usr/bin/python3) && echo "${p##*/python}" || echo none;'
            f" cat {complete} 2>/dev/null || echo none;"
            f" readlink {parent}/current || echo none;"
            # Where it will be: /opt/farrier or one thing's directory may be a disk of its own.
            f" d={parent}; until [ -d $d ]; do d=$(dirname $d); done;"
            " df -Pm $d | awk 'END{print $4, $6}'"
        )

    @staticmethod
    def default() -> EnvironmentState | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> EnvironmentState:
        """Four lines: Python, completed with, current, free MB and on which disk."""
        python, completed, current, disk = output
        free, mounted = disk.split(" ", 1)
        return EnvironmentState(python, completed, current, int(free), mounted)


@operation(asks=lambda wanted: Question(EnvironmentStates, {"path": wanted.path}))
def environment(wanted: Environment) -> Commands:
    """Build *wanted* unless it is there, and make it current.

    + wanted: the environment
    """
    now: EnvironmentState | None = answer()
    if now is None or now.python == "none":
        yield Refuse("there is no python3 on the host: apt-get install python3-minimal, then again")
        return
    if now.completed == now.python:
        if now.current == wanted.version:
            host.noop(f"{wanted.path} is complete")
        else:
            yield Script(_make_current(wanted), explain=in_words(f"{wanted.path} not made current"))
        return
    lock = dict(wanted.locks).get(now.python)
    if lock is None:
        known = ", ".join(python for python, _ in wanted.locks)
        yield Refuse(
            f"{wanted.thing} {wanted.release} has no lock for this host's Python {now.python}"
            f" (only for {known}): use a distribution that has one of them"
        )
        return
    if now.free_mb < wanted.needs_mb:
        yield Refuse(
            f"{now.disk} has {now.free_mb} MB free, {wanted.path} needs {wanted.needs_mb} MB\n"
            f"Look at: df -h {now.disk}; du -sh /opt/farrier/*/*; remove versions that no unit"
            " uses (grep -r /opt/farrier /etc/systemd/system), then run the deploy again"
        )
        return
    name = f"{wanted.thing}-{wanted.release}-py{now.python}"
    yield Build(wanted, Wheelhouse(name, lock, now.python, wanted.sources, wanted.source))


class Build(PyinfraCommand):
    """Fetch the wheelhouse (once per fleet), push it, and fill the environment from it."""

    def __init__(self, wanted: Environment, wheelhouse: Wheelhouse) -> None:
        super().__init__()
        self.wanted = wanted
        self.wheelhouse = wheelhouse

    def __repr__(self) -> str:
        return f"Build({self.wanted.path})"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:
        """Do it; every step that fails says why."""
        try:
            archive = fill(self.wheelhouse, say=host.log)
        except WheelhouseError as error:
            tell_failure(host, str(error))
            return False
        home = push(host, archive, "the wheels")
        if home is None:
            return False
        script = Script(
            _build_script(self.wanted, self.wheelhouse.python, f"{home}/{archive.name}"),
            explain=self._explain,
        )
        started = time.monotonic()
        done, _ = script.execute(state, host, connector_arguments)
        if done:
            host.log(f"{self.wanted.path} filled in {time.monotonic() - started:.0f} s")
        return done

    def _explain(self, output: str) -> str:
        if "No space left on device" in output:
            return (
                f"the disk became full while {self.wanted.path} was filled; what was there of it"
                " was removed\nLook at: df -h /opt/farrier; df -i /opt/farrier; free some space,"
                " then run the deploy again"
            )
        return (
            f"{self.wanted.path} could not be filled:\n{last_lines(output)}\n"
            "Run the deploy again; with -vvv pyinfra prints every command"
        )


def _build_script(wanted: Environment, python: str, archive: str) -> str:
    path, archive = shlex.quote(wanted.path), shlex.quote(archive)
    pth = "".join(f"{line}\\n" for line in wanted.paths)
    # A service of ours runs in a read-only tree, so its byte code is made now: 34 MiB resident
    # instead of 52. An engine's is made by its first start, of what it imports: 20,000 files.
    compiled = "--compile-bytecode" if wanted.service else ""
    own = (
        f'"$uv" pip install -q --python {path}/bin/python --offline --no-index --no-deps'
        f" --no-cache {compiled} $w/source/*.whl"
        if wanted.source
        else ":"
    )
    paths = (
        f"printf '{pth}' > {path}/lib/python{python}/site-packages/farrier-host.pth"
        if wanted.paths
        else ":"
    )
    # Hard links from a cache on the same file system: each file is written once.
    return f"""
w={path}.filling
exec 9> {ROOT}/.filling.lock
flock -w 900 9 || {{ echo "another run has been at this for 15 minutes" >&2; exit 1; }}
if [ "$(cat {path}/.complete 2>/dev/null)" = {python} ]; then rm -f {archive}; exit 0; fi
trap 'rm -rf "$w"; [ -e {path}/.complete ] || rm -rf {path}' EXIT
umask 022
rm -rf {path} "$w"
mkdir -p "$w"
tar -xf {archive} -C "$w" --no-same-owner
python3 -m zipfile -e "$w"/uv-*.whl "$w/uv"
uv=$(echo "$w"/uv/uv-*.data/scripts/uv)
chmod 755 "$uv"
"$uv" venv -q --no-config --no-project --no-python-downloads --python /usr/bin/python3 {path}
"$uv" pip sync -q --no-config --python {path}/bin/python --offline --no-index --find-links "$w" \\
    {compiled} --cache-dir "$w/cache" --link-mode hardlink --require-hashes "$w/requirements.txt"
{own}
{paths}
chmod -f go-w {path}/.lock || true  # uv leaves it writable for everybody
sync -f {path}  # a power cut after the mark leaves no hollow files behind it
echo {python} > {path}/.complete
before=$(readlink {ROOT}/{wanted.thing}/current || echo none)
{_make_current(wanted)}
{_prune(wanted) if wanted.service else ":"}
rm -f {archive}
"""


def _prune(wanted: Environment) -> str:
    """Only a service of ours: which versions engines run from, their units say."""
    thing = f"{ROOT}/{wanted.thing}"
    return f"""
for old in {thing}/*/; do
    case "$(basename "$old")" in
        current|"$before"|{wanted.version}) ;;
        *) rm -rf "$old" ;;
    esac
done"""


def _make_current(wanted: Environment) -> str:
    current = shlex.quote(f"{ROOT}/{wanted.thing}/current")
    return f"ln -sfn {shlex.quote(wanted.version)} {current}.new\nmv -fT {current}.new {current}"
