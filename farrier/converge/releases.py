"""A program from its project's release tarball, unpacked side by side by version and hash.

It lives at ``/opt/farrier/<thing>/<version>-<digits of its hash>`` and never changes once it is
complete; ``current`` names the newest. The tarball is fetched once, on the operator's machine, and
pushed. A file ``.complete`` is written last.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyinfra import host
from pyinfra.api import FactBase
from pyinfra.api.command import PyinfraCommand

from farrier.converge.commands import Refuse, Script, in_words, last_lines, tell_failure
from farrier.converge.pushing import push
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation
from farrier.tarballs import TarballError, fetch

if TYPE_CHECKING:
    from pyinfra.api import Host, State

    from farrier.converge.commands import Commands

__all__ = ["Release", "ReleaseState", "release", "unpack_script"]


@dataclass(frozen=True, slots=True)
class Release:
    """A *version* of *thing* from *url*, a tarball with this *sha256*.

    *program* is the path in it that has to be there and to be executable. *strip* leading
    directories of the tarball's names are left out. *needs_mb* is the free space that it takes.
    *build* are lines of shell, for a tarball of sources: they make what is installed in ``$out`` of
    what is in ``$src``, and another *build* is another directory.
    """

    thing: str
    version: str
    url: str
    sha256: str
    program: str
    needs_mb: int
    strip: int = 0
    build: str = ""
    root: str = "/opt/farrier"

    @property
    def name(self) -> str:
        """The directory's name: another tarball is another directory, whatever its version."""
        digits = self.sha256
        if self.build:
            digits = hashlib.sha256(f"{self.sha256} {self.build}".encode()).hexdigest()
        return f"{self.version}-{digits[:8]}"

    @property
    def path(self) -> str:
        """Where it lives on the host."""
        return f"{self.root}/{self.thing}/{self.name}"


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """Whether it is complete, which one is current, and the MiB free on its disk."""

    complete: bool
    current: str
    free_mb: int


class ReleaseStates(FactBase[ReleaseState | None]):
    """The state of the release at *path*; None when the host could not be asked."""

    def command(self, path: str) -> str:
        """One shell."""
        parent = shlex.quote(path.rpartition("/")[0])
        return (
            f"[ -e {shlex.quote(path)}/.complete ] && echo yes || echo no;"
            f" readlink {parent}/current || echo none;"
            f" d={parent}; until [ -d $d ]; do d=$(dirname $d); done;"
            " df -Pm $d | awk 'END{print $4}'"
        )

    @staticmethod
    def default() -> ReleaseState | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> ReleaseState:
        """Three lines."""
        complete, current, free = output
        return ReleaseState(complete == "yes", current, int(free))


@operation(asks=lambda wanted: Question(ReleaseStates, {"path": wanted.path}))
def release(wanted: Release) -> Commands:
    """Unpack *wanted* unless it is there, and make it current.

    + wanted: the release
    """
    now: ReleaseState | None = answer()
    if now is None:
        yield Refuse(f"the host could not be asked for {wanted.path}; see the line above")
    elif now.complete and now.current == wanted.name:
        host.noop(f"{wanted.path} is complete")
    elif now.complete:
        yield Script(_make_current(wanted), explain=in_words(f"{wanted.path} not made current"))
    elif now.free_mb < wanted.needs_mb:
        yield Refuse(
            f"{now.free_mb} MB are free, {wanted.path} needs {wanted.needs_mb} MB\n"
            "Look at: df -h /opt; du -sh /opt/farrier/*/*; remove versions that no unit uses"
            " (grep -r /opt/farrier /etc/systemd/system), then run the deploy again"
        )
    else:
        yield Unpack(wanted)


class Unpack(PyinfraCommand):
    """Fetch the tarball (once per fleet), push it, and unpack it."""

    def __init__(self, wanted: Release) -> None:
        super().__init__()
        self.wanted = wanted

    def __repr__(self) -> str:
        return f"Unpack({self.wanted.path})"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:
        """Do it; every step that fails says why."""
        try:
            archive = fetch(self.wanted.url, self.wanted.sha256, say=host.log)
        except TarballError as error:
            tell_failure(host, str(error))
            return False
        home = push(host, archive, f"the tarball of {self.wanted.thing}")
        if home is None:
            return False
        if self.wanted.build:
            host.log(f"building {self.wanted.path}: it may take an hour, at the lowest priority")
        script = Script(
            unpack_script(self.wanted, f"{home}/{archive.name}"),
            explain=lambda output: (
                f"{self.wanted.path} could not be unpacked:\n{last_lines(output)}\n"
                "What was there of it was removed. Run the deploy again"
            ),
        )
        done, _ = script.execute(state, host, connector_arguments)
        return done


def unpack_script(wanted: Release, archive: str) -> str:
    """The shell script that makes *wanted* of *archive*, a file on the host."""
    path, archive = shlex.quote(wanted.path), shlex.quote(archive)
    parent = shlex.quote(f"{wanted.root}/{wanted.thing}")
    program = shlex.quote(wanted.program)
    into = f"{path}.source" if wanted.build else f"{path}.unpacking"
    build = (
        f"src={path}.source out={path}.unpacking\n{wanted.build.strip()}" if wanted.build else ":"
    )
    return f"""
set -e
umask 022
mkdir -p {parent}
exec 9> {shlex.quote(wanted.root)}/.filling.lock
flock -w 900 9 || {{ echo "another run has been at this for 15 minutes" >&2; exit 1; }}
if [ -e {path}/.complete ]; then rm -f {archive}; exit 0; fi
trap 'rm -rf {path}.unpacking {path}.source' EXIT
printf '%s  %s\\n' {wanted.sha256} {archive} | sha256sum -c --quiet >&2
rm -rf {path} {path}.unpacking {path}.source
mkdir {path}.unpacking {path}.source
tar -xf {archive} -C {into} --no-same-owner --strip-components={wanted.strip}
{{ # the outermost `set -e` holds in here
{build}
}} >&2
[ -x {path}.unpacking/{program} ] || {{
    echo "there is no program {wanted.program} in it" >&2
    exit 1
}}
chmod -R go-w {path}.unpacking
mv -T {path}.unpacking {path}
sync -f {path}  # a power cut after the mark leaves no hollow files behind it
echo {wanted.sha256} > {path}/.complete
{_make_current(wanted)}
rm -f {archive}
"""


def _make_current(wanted: Release) -> str:
    current = shlex.quote(f"{wanted.root}/{wanted.thing}/current")
    return f"ln -sfn {shlex.quote(wanted.name)} {current}.new\nmv -fT {current}.new {current}"
