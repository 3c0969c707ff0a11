"""What versions of vLLM compiled, per replica: kept across restarts, gone with their version.

Each replica's unit keeps them in ``/var/lib/farrier/engines/<replica>/<release>``: byte code,
Triton's kernels, torch.compile's graphs, vLLM's plan of its start. They are of no use to another
version; for the way back to it they stay as long as its program does.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge.commands import Script, in_words
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from farrier.converge.commands import Commands

__all__ = ["Forgotten", "forget_caches"]


class Forgotten(FactBase[list[str]]):
    """Directories of caches whose version is not on the host any more."""

    def command(
        self,
        release: str,
        engines: str = "/var/lib/farrier/engines",
        programs: str = "/opt/farrier",
        units: str = "/etc/systemd/system",
        previous: str = "/var/lib/farrier/previous",
    ) -> str:
        """Those of *release*, of what is there, and of what a unit starts or would go back to, are
        not named.
        """
        places = {"engines": engines, "programs": programs, "units": units, "previous": previous}
        named = "".join(f"{name}={shlex.quote(place)}; " for name, place in places.items())
        return f"""{named}
for cache in "$engines"/*/[0-9]*-*/; do
    cache=${{cache%/}} release=${{cache##*/}} digits=${{cache##*-}}
    case $digits in *[!0-9a-f]*) continue ;; esac
    [ ${{#digits}} = 8 ] && [ -d "$cache" ] && [ ! -L "$cache" ] || continue
    [ "$release" != {shlex.quote(release)} ] || continue
    set -- "$programs"/*/"$release" # whichever engine's version it is
    [ ! -e "$1" ] || continue
    grep -qsF -- "/$release/" "$units"/engine-*.service "$previous"/*.service && continue
    echo "$cache"
done; true"""

    @staticmethod
    def default() -> list[str]:
        """None."""
        return []

    def process(self, output: list[str]) -> list[str]:
        """The paths."""
        return [line for line in output if line.startswith("/")]


@operation(asks=lambda release: Question(Forgotten, {"release": release}))
def forget_caches(release: str) -> Commands:  # noqa: ARG001 - it is asked about
    """Remove what versions compiled that are not on the host any more.

    + release: the version that is about to be there
    """
    found: list[str] = answer()
    if not found:
        host.noop("no caches of versions that are gone")
        return
    paths = " ".join(map(shlex.quote, found))
    yield Script(
        f"rm -rf --one-file-system -- {paths}",
        explain=in_words("caches of versions that are gone were not removed"),
    )
