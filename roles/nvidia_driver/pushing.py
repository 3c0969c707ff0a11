"""A directory of .deb files on the operator's machine, made a flat repository on the host.

The host's apt then resolves and installs from it as from any other source. Its index is written
with ``dpkg-deb -f``, which every Debian has, so that no package is needed for it. apt trusts it
unsigned because only root can write there; what was pushed is compared by SHA-256 on the way.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra.api.command import PyinfraCommand, StringCommand

from farrier.converge.commands import Script, last_lines, tell_failure
from roles.nvidia_driver.apt_files import LOCAL_LABEL
from roles.nvidia_driver.source_state import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pyinfra.api import Host, State

__all__ = ["Deb", "PushDirectory", "SourceDirectoryError", "deb_files"]


class SourceDirectoryError(ValueError):
    """The directory of the inventory holds nothing to install; says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Deb:
    """A package file on the operator's machine; *size* in bytes."""

    path: Path
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name, as it is on the host."""
        return self.path.name


def deb_files(directory: str | None, architecture: str) -> tuple[Deb, ...]:
    """The packages in *directory* that suit *architecture* (``amd64``), by name.

    Raises :class:`SourceDirectoryError`.
    """
    if not directory:
        raise SourceDirectoryError(
            'nvidia_driver_source = "directory" wants nvidia_driver_directory, a directory with'
            " .deb files on the machine that runs the deploy"
        )
    root = Path(directory).expanduser()
    if not root.is_dir():
        raise SourceDirectoryError(
            f"nvidia_driver_directory {root} is no directory on the machine that runs the deploy"
        )
    found = sorted(root.glob("*.deb"))
    suited = [path for path in found if path.stem.endswith((f"_{architecture}", "_all"))]
    if not suited:
        raise SourceDirectoryError(
            f"nvidia_driver_directory {root} holds no *_{architecture}.deb"
            + (f" (only {found[0].name} and the like)" if found else "")
        )
    if odd := [path.name for path in suited if shlex.quote(path.name) != path.name]:
        raise SourceDirectoryError(f"{root / odd[0]}: rename it to what dpkg-deb calls packages")
    return tuple(_deb(path, path.stat().st_size, path.stat().st_mtime_ns) for path in suited)


@cache
def _deb(path: Path, size: int, _changed: int) -> Deb:
    """Read once per run, for all hosts."""
    with path.open("rb") as file:
        return Deb(path, size, hashlib.file_digest(file, "sha256").hexdigest())


class PushDirectory(PyinfraCommand):
    """Push *debs* except those that are *there* already, and index them."""

    def __init__(self, debs: Sequence[Deb], there: Collection[str]) -> None:
        super().__init__()
        self.debs = debs
        self.missing = [deb for deb in debs if deb.name not in there]

    def __repr__(self) -> str:
        return f"PushDirectory({len(self.missing)} of {len(self.debs)} packages)"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:
        """Do it; the repository changes in one step, when everything is there."""
        made, output = host.run_shell_command(
            StringCommand(
                'd="$HOME/.cache/farrier/debs"; umask 077; mkdir -p "$d" && chmod 700 "$d" &&'
                ' echo "$d"'
            )
        )
        if not made:
            tell_failure(host, _no_room(output.output))
            return False
        home = output.stdout_lines[-1]
        for deb in self.missing:
            host.log(f"pushing {deb.name} ({deb.size / 1e6:.0f} MB)")
            try:
                host.put_file(str(deb.path), f"{home}/{deb.name}")
            except OSError as error:  # SFTP says no more than "Failure" of a full disk
                host.run_shell_command(StringCommand("rm", "-rf", home))
                tell_failure(host, _no_room(f"{deb.name}: {error}"))
                return False
        done, _ = Script(
            _index(home, self.debs, [deb.name for deb in self.missing]),
            explain=lambda said: (
                f"the pushed packages were not made a repository:\n{last_lines(said, 4)}\n"
                f"Look at: df -h /var/lib/farrier; the .deb files of nvidia_driver_directory;"
                " then run the deploy again"
            ),
        ).execute(state, host, connector_arguments)
        return done


def _no_room(said: str) -> str:
    return (
        f"the SSH user's home cannot take the packages: {last_lines(said, 3)}\n"
        "Look at: df -h ~; ls -ld ~ ~/.cache as that user; then run the deploy again"
    )


def _index(home: str, debs: Sequence[Deb], missing: Sequence[str]) -> str:
    """Verify what came, add what was there, write the index, exchange the directories."""
    new = f"{PACKAGES}.new"
    sums = "".join(f"{deb.sha256}  {deb.name}\n" for deb in debs)
    kept = [deb.name for deb in debs if deb.name not in missing]
    take = "".join(f"cp -- {shlex.quote(home)}/{name} {new}/\n" for name in missing)
    keep = "".join(f"cp -l -- {PACKAGES}/{name} {new}/\n" for name in kept)
    return f"""
trap 'rm -rf {new} {shlex.quote(home)}' EXIT
umask 022
rm -rf {new}
mkdir -p {new}
{take}{keep}cd {new}
chmod 644 -- *.deb
cat > SHA256SUMS <<'FARRIER'
{sums}FARRIER
sha256sum --quiet -c SHA256SUMS
for deb in *.deb; do
    dpkg-deb -f "$deb"
    printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' "$deb" "$(stat -c %s "$deb")" \\
        "$(grep -F "  $deb" SHA256SUMS | cut -c1-64)"
done > Packages
{{
    echo 'Origin: Farrier'
    echo 'Label: {LOCAL_LABEL}'
    echo "Date: $(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S UTC')"
    echo 'SHA256:'
    echo " $(sha256sum Packages | cut -c1-64) $(stat -c %s Packages) Packages"
}} > Release
sync -f .
rm -rf {PACKAGES}.old
[ ! -e {PACKAGES} ] || mv {PACKAGES} {PACKAGES}.old
mv {new} {PACKAGES}
rm -rf {PACKAGES}.old
"""
