"""One operation for all files, directories and links of a role.

The state of every path is read by two processes on the host (``find`` and ``sha256sum``), whatever
their number. Files are written through the command's standard input into a temporary file beside
their place and renamed over it, so that no reader ever sees half a file, nothing passes through a
guessable name in /tmp, and no content appears in an argument list.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import shlex
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pyinfra import host, logger, state
from pyinfra.api import FactBase
from pyinfra.facts.files import FileContents

from farrier.converge.commands import Refuse, Script, in_words, last_lines
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyinfra.api.command import PyinfraCommand

    from farrier.converge.commands import Commands

__all__ = ["Absent", "Directory", "Link", "PathState", "PathStates", "Text", "tree"]


@dataclass(frozen=True, slots=True)
class Text:
    """A file with this *content*. A *secret* one is never shown, not even by ``--diff``."""

    path: str
    content: str = field(repr=False)
    mode: str = "644"
    user: str = "root"
    group: str = "root"
    secret: bool = False

    @property
    def sha256(self) -> str:
        """Of the content, in hex."""
        return hashlib.sha256(self.content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory with this owner and mode. Its parent has to exist or be listed before it."""

    path: str
    mode: str = "755"
    user: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link to *target*; replaced atomically."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing at this path: a file or link is removed, a directory with all it holds."""

    path: str


Entry = Text | Directory | Link | Absent


@dataclass(frozen=True, slots=True)
class PathState:
    """What stands at a path: *kind* is ``find``'s letter (``f d l …``), *mode* octal digits."""

    kind: str
    mode: str
    user: str
    group: str
    target: str
    sha256: str | None = None


class PathStates(FactBase[dict[str, PathState] | None]):
    """The state of each of *paths* that exists; None when the host could not be asked."""

    def command(self, paths: Sequence[str]) -> str:
        """Two processes, whatever the number of paths."""
        names = " ".join(shlex.quote(path) for path in paths)
        return (
            f"find {names} -maxdepth 0 -printf '%y|%m|%u|%g|%l|%p\\n' 2>/dev/null; echo ==;"
            f" sha256sum -- {names} 2>/dev/null; true"
        )

    @staticmethod
    def default() -> dict[str, PathState] | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> dict[str, PathState]:
        """Parse what :meth:`command` printed."""
        return parse_states(output)


def parse_states(output: Sequence[str]) -> dict[str, PathState]:
    """Parse ``find``'s lines, a line ``==``, and ``sha256sum``'s lines."""
    border = output.index("==")
    digests = {
        line[66:]: line[:64] for line in output[border + 1 :] if len(line) > 66 and line[64] == " "
    }
    states = {}
    for line in output[:border]:
        kind, mode, user, group, target, path = line.split("|", 5)
        states[path] = PathState(kind, mode, user, group, target, digests.get(path))
    return states


def differs(entry: Entry, now: PathState | None) -> bool:
    """Whether *entry* is not what stands at its path *now*."""
    match entry:
        case Absent():
            return now is not None
        case Link(target=target):
            return now is None or now.kind != "l" or now.target != target
        case Directory(mode=mode, user=user, group=group):
            return now is None or (now.kind, now.mode, now.user, now.group) != (
                "d",
                mode.lstrip("0"),
                user,
                group,
            )
        case Text(mode=mode, user=user, group=group):
            return now is None or (now.kind, now.mode, now.user, now.group, now.sha256) != (
                "f",
                mode.lstrip("0"),
                user,
                group,
                entry.sha256,
            )


def _paths(*entries: Entry, applied: str | None = None) -> Question:  # noqa: ARG001
    paths = [entry.path for entry in entries]
    return Question(PathStates, {"paths": paths}, several="paths")


@operation(asks=_paths)
def tree(*entries: Entry, applied: str | None = None) -> Commands:
    """Make every entry so.

    + entries: what has to stand where, parents before children
    + applied: name of the service that reads these files; its mark of being up to date is removed
      before the first change, see :func:`farrier.converge.units.units`
    """
    states: dict[str, PathState] | None = answer()
    if states is None:
        yield Refuse("the host could not be asked for its files; see the line above")
        return
    changes = [entry for entry in entries if differs(entry, states.get(entry.path))]
    if not changes:
        host.noop(f"{len(entries)} paths are as they should be")
        return
    if applied:
        yield Script(
            f"rm -f {shlex.quote(mark(applied))}", explain=in_words(f"{mark(applied)} not removed")
        )
    for entry in changes:
        if isinstance(entry, Text) and state.config.DIFF and not entry.secret:
            _show_diff(entry, exists=entry.path in states)
        yield _change(entry)


def mark(service: str) -> str:
    """The file whose presence says that *service* runs with all that is on the disk."""
    return f"/var/lib/farrier/applied/{service}"


def _change(entry: Entry) -> PyinfraCommand:
    path = shlex.quote(entry.path)
    match entry:
        case Absent():
            return Script(f"rm -rf -- {path}", explain=_explain(entry))
        case Link(target=target):
            new = shlex.quote(f"{entry.path}.farrier-new")
            return Script(
                f"ln -sfn -- {shlex.quote(target)} {new}\nmv -fT -- {new} {path}",
                explain=_explain(entry),
            )
        case Directory(mode=mode, user=user, group=group):
            return Script(
                f"[ -d {path} ] || mkdir -- {path}\n"
                f"chown {user}:{group} -- {path}\nchmod {mode} -- {path}",
                explain=_explain(entry),
            )
        case Text(content=content, mode=mode, user=user, group=group):
            # The name is fixed: what an interrupted run left is overwritten by the next one.
            new = shlex.quote(f"{entry.path}.farrier-new")
            parent = shlex.quote(str(PurePosixPath(entry.path).parent))
            return Script(
                f"umask 022\nmkdir -p -- {parent}\numask 077\nrm -f -- {new}\nbase64 -d > {new}\n"
                f"chown {user}:{group} -- {new}\nchmod {mode} -- {new}\nmv -fT -- {new} {path}",
                explain=_explain(entry),
                stdin=base64.b64encode(content.encode()).decode() or "=",
            )


def _explain(entry: Entry) -> Callable[[str], str]:
    def explain(output: str) -> str:
        parent = PurePosixPath(entry.path).parent
        return (
            f"{entry.path} could not be changed: {last_lines(output, 3) or 'no reason given'}\n"
            f"Look at: df -h {parent}; ls -ld {parent}; then run the deploy again"
        )

    return explain


def _show_diff(entry: Text, *, exists: bool) -> None:
    before = host.get_fact(FileContents, path=entry.path) if exists else []
    for line in difflib.unified_diff(
        before or [], entry.content.splitlines(), entry.path, entry.path, lineterm=""
    ):
        logger.info(f"    {line}")
