"""Where the driver's packages come from, made known to the host's apt.

What the role calls, for a host with accelerator "cuda" and source != "none"::

    apt_source(source, url=…, key_url=…, fingerprint=…, proxy=…, directory=…, name="Source")

It does nothing when all is as it should be. Otherwise it writes proxy, keyring and preferences,
fetches the package lists of this source alone, and only when that has succeeded puts the source
among apt's: a repository that is out of reach or badly signed never breaks the host's apt. Before a
transaction the lists of all sources are fetched anew. The removal is ``tree(*absent())``.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge import Absent
from farrier.converge.commands import Refuse, Script, in_words, last_lines
from farrier.converge.packages import LOCK_TIMEOUT, explain_apt, waiting
from farrier.converge.questions import Question, answer
from farrier.converge.report import note
from farrier.converge.typed import operation
from roles.nvidia_driver.keys import FetchKey, judge_key
from roles.nvidia_driver.names import successor
from roles.nvidia_driver.operations import decided
from roles.nvidia_driver.pushing import PushDirectory, SourceDirectoryError, deb_files
from roles.nvidia_driver.source_plan import SourceError, Wanted, differs, plan_source
from roles.nvidia_driver.source_state import (
    KEYRING,
    OWN_FILES,
    PACKAGES,
    PREFERENCES,
    PROXY,
    SOURCES,
    SourceState,
    SourceStates,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.converge.commands import Commands

__all__ = ["absent", "apt_source"]


@operation(asks=lambda *_, **__: Question(SourceStates, {}))
def apt_source(
    source: str,
    *,
    url: str | None = None,
    key_url: str | None = None,
    fingerprint: str | None = None,
    proxy: str | None = None,
    directory: str | None = None,
) -> Commands:
    """Make the source of the driver's packages known to apt, and nothing else of it wanted.

    + source: nvidia, ubuntu, debian or directory
    + url: NVIDIA's repository or a mirror of it; {distro} and {arch} are filled in
    + key_url: where its key is; default: url/<last 8 digits of the fingerprint>.pub
    + fingerprint: of the key, 40 hex digits; default: NVIDIA's for the host's system
    + proxy: http://host:port through which apt reaches it
    + directory: for source directory: a directory with .deb files on the operator's machine
    """
    now: SourceState | None = answer()
    if now is None:
        yield Refuse("the host could not be asked for its apt sources; see the line above")
        return
    try:
        wanted = plan_source(
            source, now, url=url, key_url=key_url, fingerprint=fingerprint, proxy=proxy
        )
        debs = deb_files(directory, now.architecture) if source == "directory" else ()
    except (SourceError, SourceDirectoryError) as error:
        yield Refuse(str(error))
        return
    pushed = {deb.name: (deb.size, deb.sha256) for deb in debs}
    if stale := pushed != now.pushed and bool(debs):
        yield PushDirectory(
            debs, {name for name, it in pushed.items() if now.pushed.get(name) == it}
        )
    if differs(wanted, now, PROXY):
        yield _written(PROXY, wanted.files[PROXY])
    renewed = wanted.fingerprint and _key_wanting(wanted, now)
    if renewed:
        yield FetchKey(wanted.key_url, wanted.fingerprint, KEYRING, now.verifier)
    if differs(wanted, now, PREFERENCES):
        yield _written(PREFERENCES, wanted.files[PREFERENCES])
    listed = not wanted.uri or now.has_lists(wanted.uri)
    fetch = differs(wanted, now, SOURCES) or stale or renewed or not listed
    if wanted.files[SOURCES] and fetch:
        yield Script(
            _fetch_lists(wanted.files[SOURCES]), explain=lambda said: explain_update(said, wanted)
        )
    if differs(wanted, now, SOURCES):
        yield _written(SOURCES, wanted.files[SOURCES])
    if source != "directory" and now.pushed:
        yield Script(f"rm -rf {PACKAGES}", explain=in_words(f"{PACKAGES} not removed"))
    acting = decided("install", "change")
    if acting:
        # A transaction is planned next: from what there is today, of all of the host's sources.
        yield Script(
            _refresh(patient=source != "directory"),
            explain=lambda said: explain_apt(said, ["the driver"]),
        )
    if acting and source == "ubuntu" and (ended := host.get_fact(EndedBranch, names=_names())):
        yield Refuse(
            f"nothing of the driver was changed: Ubuntu's archive has ended this branch, {ended}\n"
            "Name the later branch as nvidia_driver_branch, or"
            ' nvidia_driver_source = "nvidia", which keeps the earlier ones'
        )
        return
    written = any(differs(wanted, now, path) for path in (PROXY, PREFERENCES))
    if not (fetch or acting or written):
        host.noop(f"apt knows the source {source} of the driver")


class EndedBranch(FactBase[str]):
    """Which of the packages *names* is an empty dependency on another branch; "" if none is."""

    def command(self, names: Sequence[str]) -> str:
        """All versions, the newest first: the guard of an installed driver leaves no candidate."""
        quoted = " ".join(shlex.quote(name) for name in names)
        return f"LC_ALL=C apt-cache show {quoted} 2>/dev/null || true"

    @staticmethod
    def default() -> str:
        """None."""
        return ""

    def process(self, output: list[str]) -> str:
        """Look for one whose only dependency is its own name with another branch."""
        newest: dict[str, str] = {}
        for record in "\n".join(output).split("\n\n"):
            lines = (line.partition(": ") for line in record.splitlines() if line[:1] != " ")
            told = {name: value for name, _, value in lines}
            newest.setdefault(told.get("Package", ""), told.get("Depends", ""))
        for name, depends in newest.items():
            if later := successor(name, depends):
                return f"{name} is an empty package that installs {later}"
        return ""


def _names() -> tuple[str, ...]:
    """The packages that the role's plan wants."""
    plan: Any = host.connector_data.get("farrier_nvidia_driver")
    return plan.wanted.names if plan else ()


def _key_wanting(wanted: Wanted, now: SourceState) -> bool:
    """Whether the keyring has to be fetched anew; says why when there is one already."""
    if now.keyring is None:
        return True
    verdict = judge_key(now.keyring, wanted.fingerprint, now.verifier)
    if verdict.refused:
        host.log(f"{KEYRING} is fetched anew: {verdict.refused.splitlines()[0]}")
        return True
    if verdict.remark:
        note("left", host.name, verdict.remark)
    return False


def _written(path: str, text: str) -> Script:
    new = shlex.quote(f"{path}.farrier-new")
    script = (
        f"umask 022\ncat > {new}\nmv -fT {new} {shlex.quote(path)}"
        if text
        else f"rm -f {shlex.quote(path)}"
    )
    return Script(script, explain=in_words(f"{path} not written"), stdin=text or "\n")


def _refresh(*, patient: bool) -> str:
    """Fetch the lists of all sources; a host whose packages were pushed may not reach them."""
    failed = "" if patient else " || true"
    return f"{_waiting()}\n(unlocked apt-get -q update){failed}"


def _waiting() -> str:
    return waiting(int(host.data.get("apt_lock_timeout", LOCK_TIMEOUT)))


def _fetch_lists(sources: str) -> str:
    """Fetch the lists of this source alone, before it is one of the host's."""
    return f"""
d=$(mktemp -d /run/farrier-source.XXXXXXXX)
trap 'rm -rf "$d"' EXIT
chmod 755 "$d"
cat > "$d/farrier.sources" <<'FARRIER'
{sources}FARRIER
{_waiting()}
export LC_ALL=C
unlocked apt-get -q update -o Dir::Etc::sourcelist="$d/farrier.sources" \\
    -o Dir::Etc::sourceparts=/dev/null -o APT::Get::List-Cleanup=0 \\
    -o APT::Update::Error-Mode=any -o Acquire::Retries=2
"""


def explain_update(output: str, wanted: Wanted) -> str:
    """Cause and next step of package lists that could not be fetched."""
    where = wanted.uri or "the archive's further components"
    told = last_lines(
        "\n".join(line for line in output.splitlines() if re.match(r"[EW]: |   ", line)) or output,
        6,
    )
    if "NO_PUBKEY" in output or "Missing key" in output or "not signed" in output:
        return (
            f"{where} is not signed with the key {wanted.fingerprint[-8:]}; apt does not know it"
            f" and nothing was changed:\n{told}\n"
            "Look at: nvidia_repo_fingerprint and nvidia_repo_key_url in the inventory, and who"
            " signs the mirror"
        )
    return (
        f"the package lists of {where} could not be fetched; it is not among apt's sources:\n"
        f"{told}\n"
        "Look at: nvidia_repo_url and nvidia_repo_proxy in the inventory; DNS, routes and the"
        " mirror on the host; then run the deploy again"
    )


def absent() -> tuple[Absent, ...]:
    """All that this operation writes, for the removal: files, keyring and pushed packages."""
    return tuple(Absent(path) for path in (*OWN_FILES, KEYRING, PACKAGES))
