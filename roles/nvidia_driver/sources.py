"""Where the driver's packages come from, made known to the host's apt.

What the role calls, for a host with accelerator "cuda" and source != "none"::

    apt_source(source, url=…, key_url=…, fingerprint=…, proxy=…, directory=…, name="Source")

It does nothing when all is as it should be. Otherwise it writes proxy, keyring and preferences,
fetches the package lists of this source alone, and only when that has succeeded puts the source
among apt's: a repository that is out of reach or badly signed never breaks the host's apt. Lists
of the other sources are not touched. The removal is ``tree(*absent())``.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyinfra import host

from farrier.converge import Absent
from farrier.converge.commands import Refuse, Script, in_words, last_lines
from farrier.converge.packages import LOCK_TIMEOUT
from farrier.converge.questions import Question, answer
from farrier.converge.report import note
from farrier.converge.typed import operation
from roles.nvidia_driver.apt_files import (
    archive_sources,
    local_sources,
    preferences,
    proxy_settings,
    repository_sources,
    same_repository,
)
from roles.nvidia_driver.keys import FINGERPRINTS, FetchKey, judge_key, normal, usual_key_url
from roles.nvidia_driver.names import SYSTEMS
from roles.nvidia_driver.pushing import PushDirectory, SourceDirectoryError, deb_files
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
    from collections.abc import Mapping

    from farrier.converge.commands import Commands

__all__ = ["KEYRING", "PACKAGES", "absent", "apt_source", "repository_url"]

REPOSITORY = "https://developer.download.nvidia.com/compute/cuda/repos/{distro}/{arch}"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "sbsa"}
"""Debian's name of an architecture -> NVIDIA's."""

COMPONENTS = {
    ("debian", "debian"): ("contrib", "non-free", "non-free-firmware"),
    ("ubuntu", "ubuntu"): ("restricted", "multiverse"),
    # NVIDIA's packages for Debian depend on some of contrib (installation guide, "Debian").
    ("nvidia", "debian"): ("contrib",),
}
"""(source, distribution) -> components of the distribution's archive that it takes."""


class SourceError(ValueError):
    """The source cannot be what the inventory says; says what to write instead."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the host's apt should know. *uri* is "" where the archive is the source.

    *files* are the texts of our files, "" for one that should not be there.
    """

    uri: str = ""
    fingerprint: str = ""
    key_url: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def repository_url(url: str | None, system: str, architecture: str) -> str:
    """NVIDIA's repository for *system* (``debian12``), or the mirror *url* of it."""
    return (url or REPOSITORY).format(
        distro=system, arch=ARCHITECTURES.get(architecture, architecture)
    )


def plan_source(
    source: str,
    now: SourceState,
    *,
    url: str | None = None,
    key_url: str | None = None,
    fingerprint: str | None = None,
    proxy: str | None = None,
) -> Wanted:
    """What apt should know of *source* on a host as it is *now*. Raises :class:`SourceError`."""
    if now.system not in SYSTEMS:
        raise SourceError(
            f"{now.system} is none of the systems that NVIDIA's driver is installed on by this"
            f' role: {", ".join(SYSTEMS)}. nvidia_driver_source = "none" uses the driver that is'
            " there"
        )
    if proxy and not re.fullmatch(r"https?://[A-Za-z0-9._:\[\]-]+/?", proxy):
        raise SourceError(
            f"nvidia_repo_proxy {proxy!r} is not http://host:port (a password belongs into"
            " /etc/apt/auth.conf.d on the host)"
        )
    distribution = "ubuntu" if now.system.startswith("ubuntu") else "debian"
    if source in {"debian", "ubuntu"} and source != distribution:
        raise SourceError(
            f'nvidia_driver_source = "{source}" on a host with {now.system}: say'
            f' "{distribution}" or "nvidia"'
        )
    texts = []
    components = COMPONENTS.get((source, distribution), ())
    if components:
        archive = archive_sources(now.entries, now.codename, components, now.architecture)
        if archive is None and source != "nvidia":
            raise SourceError(
                f"no source of the archive ({now.codename}, main) was found in /etc/apt: add one to"
                f" sources.list.d with the components main {' '.join(components)}"
            )
        texts.append(archive or "")
    uri = wanted_fingerprint = wanted_key = ""
    if source == "nvidia":
        uri = repository_url(url, now.system, now.architecture)
        wanted_fingerprint = normal(fingerprint or FINGERPRINTS[now.system])
        wanted_key = key_url or usual_key_url(uri, wanted_fingerprint)
        _refuse_conflict(uri, now)
        texts.append(repository_sources(uri, KEYRING, now.architecture))
    elif source == "directory":
        uri = f"file:{PACKAGES}/"
        texts.append(local_sources(PACKAGES, now.architecture))
    files = {
        PROXY: proxy_settings(proxy, [uri, wanted_key]) if proxy and wanted_key else "",
        PREFERENCES: preferences(source),
        SOURCES: "\n".join(text for text in texts if text),
    }
    return Wanted(uri, wanted_fingerprint, wanted_key, files)


def _refuse_conflict(uri: str, now: SourceState) -> None:
    for entry in now.entries:
        if same_repository(entry.uri, uri) and entry.signed_by != KEYRING:
            raise SourceError(
                f"{entry.path} names the same repository with another keyring"
                f" ({entry.signed_by or 'none of its own'}); apt refuses both together\n"
                f"Look at: dpkg -S {entry.path}; if nothing else needs it:"
                f" apt-get purge cuda-keyring; rm -f {entry.path}; then run the deploy again"
            )


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
    if not fetch and not any(differs(wanted, now, path) for path in (PROXY, PREFERENCES)):
        host.noop(f"apt knows the source {source} of the driver")


def differs(wanted: Wanted, now: SourceState, path: str) -> bool:
    """Whether our file *path* is not as it should be."""
    return now.files.get(path, "") != wanted.files[path]


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


def _fetch_lists(sources: str) -> str:
    """Fetch the lists of this source alone, before it is one of the host's."""
    lock_timeout = int(host.data.get("apt_lock_timeout", LOCK_TIMEOUT))
    return f"""
d=$(mktemp -d /run/farrier-source.XXXXXXXX)
trap 'rm -rf "$d"' EXIT
chmod 755 "$d"
cat > "$d/farrier.sources" <<'FARRIER'
{sources}FARRIER
deadline=$(($(date +%s) + {lock_timeout}))
until out=$(LC_ALL=C apt-get -q update -o Dir::Etc::sourcelist="$d/farrier.sources" \\
    -o Dir::Etc::sourceparts=/dev/null -o APT::Get::List-Cleanup=0 \\
    -o APT::Update::Error-Mode=any -o Acquire::Retries=2 2>&1); do
    case "$out" in *"Could not get lock"*)
        if [ "$(date +%s)" -lt "$deadline" ]; then sleep 1; continue; fi;;
    esac
    echo "$out" >&2
    exit 1
done
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
