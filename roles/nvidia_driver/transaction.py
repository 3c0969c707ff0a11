"""The driver's transaction: rehearsed by the host's apt, then handed to the host as a journal.

The program that does it is ``templates/transaction.sh``; it runs there as a unit of its own, so
that an operator who loses the connection leaves no half of it behind.
"""

from __future__ import annotations

import base64
import io
import re
import shlex
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

from farrier.converge.commands import Script
from roles.nvidia_driver.guard import blacklist, preferences, trial_preferences
from roles.nvidia_driver.look import STATE
from roles.nvidia_driver.simulation import Simulation, parse_simulation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farrier.converge.commands import Commands

__all__ = ["UNIT", "Journal", "OffersFact", "Rehearsal", "RehearsalFact", "journal", "start"]

UNIT = "farrier-driver"
"""The unit in which the program runs on the host."""
LOG = f"{STATE}/log"
_PROGRAM = Path(__file__).parent / "templates" / "transaction.sh"

_FLAGS = ("--allow-downgrades", "--allow-change-held-packages")


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the host's apt would do. *version* is the kernel module's package's, None if no version
    on *offers* is the wanted one. *unknown* are packages that no source has."""

    version: str | None
    offers: tuple[str, ...]
    unknown: tuple[str, ...]
    simulation: Simulation


# Nothing is written but a directory in /tmp, which goes again. $offered and $version stay in here.
_REHEARSE = r"""
export LC_ALL=C
parts=$(mktemp -d); trap 'rm -rf "$parts"' EXIT
for f in /etc/apt/preferences.d/*; do
    [ ! -f "$f" ] || [ "${f##*/}" = farrier-nvidia ] || cp "$f" "$parts"/
done
apt-cache madison __MODULE__ 2>/dev/null | sed 's/^[^|]*| *\([^ ]*\).*/offer \1/'
version=$(apt-cache madison __MODULE__ 2>/dev/null | awk -F' *[|] *' -v want=__WANTED__ '
    {
        plain = $2
        if (index(want, ":") == 0) sub(/^[0-9]+:/, "", plain)
        rest = substr(plain, length(want) + 1, 1)
        if (index(plain, want) == 1 && (rest == "" || rest ~ /[-.+~]/)) { print $2; exit }
    }')
[ -n "$version" ] || exit 0
echo "version $version"
upstream=${version%%-*}
cat > "$parts/00farrier-trial" <<EOF
Package: __MODULE__
Pin: version $version
Pin-Priority: 1002

__TRIAL__
EOF
set -- __NAMES__
for name in __OPTIONAL__; do
    if [ -n "$(apt-cache show --no-all-versions "$name" 2>/dev/null)" ]; then set -- "$@" "$name"
    else echo "unknown $name"; fi
done
echo simulation
# Our own holds: only what is asked for by name is taken out of them. The transaction names all.
apt-get -s -q -y -o Dir::Etc::PreferencesParts="$parts" -o APT::Install-Recommends=false \
    -o APT::Ignore-Hold=true --fix-broken __FLAGS__ install "$@" 2>&1
true
"""


class RehearsalFact(FactBase[Rehearsal | None]):
    """:class:`Rehearsal` of the newest version of *module* that begins with *wanted*.

    *names* have to come with it, *optional* ones where a source has them; ``name-`` has to go.
    """

    def command(
        self, module: str, wanted: str, names: Sequence[str], optional: Sequence[str]
    ) -> str:
        """One shell: the choice of the version is the host's, as its sources are."""
        words = {
            "__MODULE__": shlex.quote(module),
            "__WANTED__": shlex.quote(wanted),
            "__NAMES__": shlex.join(names),
            "__OPTIONAL__": shlex.join(optional),
            "__FLAGS__": " ".join(_FLAGS),
            "__TRIAL__": trial_preferences("$upstream"),
        }
        script = _REHEARSE
        for placeholder, text in words.items():
            script = script.replace(placeholder, text)
        return script.strip()

    @staticmethod
    def default() -> Rehearsal | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> Rehearsal:
        """Parse the lines before ``simulation``; what follows is apt's."""
        border = output.index("simulation") if "simulation" in output else len(output)
        said = [line.partition(" ") for line in output[:border]]
        return Rehearsal(
            next((rest for word, _, rest in said if word == "version"), None),
            tuple(dict.fromkeys(rest for word, _, rest in said if word == "offer")),
            tuple(rest for word, _, rest in said if word == "unknown"),
            parse_simulation(output[border + 1 :]),
        )


class OffersFact(FactBase[tuple[str, ...] | None]):
    """The versions of *module* that the host's sources have, as its lists say."""

    def command(self, module: str) -> str:
        """What is installed, and in no source, is none of them.

        Something is said in any case: what says nothing is unknown to pyinfra.
        """
        return f"echo asked; LC_ALL=C apt-cache madison {shlex.quote(module)} 2>/dev/null; true"

    @staticmethod
    def default() -> tuple[str, ...] | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> tuple[str, ...]:
        """A line is ``PACKAGE | VERSION | SOURCE``."""
        words = [line.split("|") for line in output]
        return tuple(dict.fromkeys(one[1].strip() for one in words if len(one) == 3))


@dataclass(frozen=True, slots=True)
class Journal:
    """A transaction as the host keeps it until it is done: file names to texts."""

    files: Mapping[str, str]

    def packed(self) -> str:
        """A tar archive in base64."""
        return _packed(self.files)


def journal(simulation: Simulation, installed: Mapping[str, str], extra: Sequence[str]) -> Journal:
    """The journal of what was rehearsed. *extra* are arguments besides the driver's packages.

    Every package of the driver is named with its version, and every one that has to go: what apt
    is asked for leaves it nothing to choose, and nothing to keep because it is held.
    """
    packages = simulation.after(installed)
    exact = [f"{name}={version}" for name, version in packages.items()]
    exact += [f"{name}-" for name in simulation.removes]
    lines = "".join(f"{name} {version}\n" for name, version in packages.items())
    return Journal(
        {
            "arguments": "\n".join([*_FLAGS, "install", *exact, *extra]) + "\n",
            "set": lines,
            "steps": "\n".join(simulation.steps) + "\n",
            "new": "".join(f"{name}\n" for name in simulation.new),
            "preferences": preferences(packages),
            "blacklist": blacklist(packages),
        }
    )


def _packed(files: Mapping[str, str]) -> str:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, text in files.items():
            content = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return base64.b64encode(archive.getvalue()).decode()


def start(command: str, lock_timeout: int, opened: Journal | None = None) -> Commands:
    """Run the program on the host with *command* (``run``, ``keep``, ``remove …``) to its end.

    *opened* becomes the open transaction first, in the place of an interrupted one that was to
    bring something else.
    """
    program = _PROGRAM.read_text(encoding="utf-8").replace("__LOCK_TIMEOUT__", str(lock_timeout))
    files = {"transaction": program} | {
        f"open.new/{name}": text for name, text in (opened.files if opened else {}).items()
    }
    opening = "sync\nrm -rf open\nmv -T open.new open" if opened else ":"
    yield Script(
        f"""
mkdir -p {STATE}
cd {STATE}
touch lock
exec 9>lock
flock 9
rm -rf open.new
: > log
base64 -d | tar -xz --no-same-owner
chmod 755 transaction
{opening}
exec 9>&-
unit={UNIT}
n=0
# One that has ended stays loaded while anything is left in its control group. The lock, not the
# name, is what lets only one of them work.
while [ "$(systemctl show -P LoadState "$unit.service")" != not-found ]; do
    n=$((n + 1))
    unit={UNIT}-$n
done
status=0
systemd-run --quiet --wait --collect --unit="$unit" --property=Type=exec \\
    --property=StandardOutput=append:{LOG} --property=StandardError=append:{LOG} \\
    --description="Farrier: this host's NVIDIA driver" {STATE}/transaction {command} || status=$?
[ $status = 0 ] || tail -n 60 log >&2
exit $status
""",
        stdin=_packed(files),
        explain=explain,
    )


_PROGRESS = re.compile(
    r"Preparing to unpack |Unpacking |Setting up |Selecting |Processing triggers |\(Reading |Get:"
    r"|Fetched |dpkg: warning: downgrading "
)
"""What dpkg and apt say of each package that goes well: the cause stands between such lines."""
_CAUSE = re.compile(r"farrier: .* ")
"""What the program says of a failure: a sentence. A phase is one word."""


def explain(output: str) -> str:
    """Cause and next step of a transaction that failed, from the end of its log."""
    lines = [line for line in output.splitlines() if line.strip() and not _PROGRESS.match(line)]
    causes = [at for at, line in enumerate(lines) if _CAUSE.match(line)]
    told, shown = "", lines
    if causes:
        told = f": {lines[causes[-1]].removeprefix('farrier: ')}"
        shown = lines[causes[-1] + 1 :] or lines  # what follows it belongs to it
    said = "\n".join(shown[-30:])
    return (
        f"the driver's transaction failed{told}\n"
        f"{said}\n"
        f"Look at: {LOG} on the host; put that right, then run the deploy again: it goes on where"
        " this one ended"
    )
