"""An archive on its way from the operator's cache to a host: copied once, resumed never."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyinfra.api.command import StringCommand

from farrier.converge.commands import last_lines, tell_failure

if TYPE_CHECKING:
    from pathlib import Path

    from pyinfra.api import Host

__all__ = ["push"]


def push(host: Host, archive: Path, what: str) -> str | None:
    """Copy *archive*, which holds *what*, into a directory of the SSH user's own.

    Returns that directory; None when it failed, which was told.
    """
    size = archive.stat().st_size
    ask = StringCommand(
        'd="$HOME/.cache/farrier"; umask 077; mkdir -p "$d" && chmod 700 "$d" && echo "$d" &&'
        f' (stat -c %s "$d/{archive.name}" 2>/dev/null || echo 0)'
    )
    done, output = host.run_shell_command(ask)
    if not done:
        tell_failure(
            host,
            f"the SSH user's home cannot take {what}: {last_lines(output.output, 3)}\n"
            "Look at: df -h ~; ls -ld ~ ~/.cache as that user; then run the deploy again",
        )
        return None
    home, there = output.stdout_lines
    if int(there) != size:
        started = time.monotonic()
        host.log(f"pushing {archive.name} ({size / 1e6:.0f} MB)")
        try:
            host.put_file(str(archive), f"{home}/{archive.name}")
        except OSError as error:  # SFTP says no more than "Failure" of a full disk
            host.run_shell_command(StringCommand("rm", "-f", f"{home}/{archive.name}"))
            tell_failure(
                host,
                f"{archive.name} ({size / 1e6:.0f} MB) could not be pushed to {home}: {error}\n"
                f"Look at: df -h {home}; df -i {home}; free some space, then run the deploy"
                " again",
            )
            return None
        seconds = time.monotonic() - started
        host.log(f"pushed in {seconds:.0f} s ({size / 1e6 / seconds:.0f} MB/s)")
    return str(home)
