"""Two kinds of command that pyinfra lacks: one that refuses, and one that explains its failure.

An exception inside an operation aborts the run on *every* host (measured with pyinfra 3.10); a
command that returns False fails its own host only, and the others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from paramiko import SSHException
from pyinfra import logger
from pyinfra.api.command import PyinfraCommand, StringCommand
from pyinfra.connectors.util import CommandOutput

from farrier.converge.report import note

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pyinfra.api import Host, State

    Commands = Generator[PyinfraCommand, None, None]

__all__ = ["Commands", "Explained", "Refuse", "Script", "in_words", "last_lines", "tell_failure"]


def tell_failure(host: Host, message: str) -> None:
    """Say *message* now, in *host*'s part of the output, and once more in the run's last lines."""
    indented = message.replace("\n        ", "\n").replace("\n", "\n        ")
    if note("failed", host.name, indented):
        host.log_styled(indented, fg="red", log_func=logger.error)


class Refuse(PyinfraCommand):
    """Fails the host with *message*, which names the cause and the next step. Runs nothing."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def __repr__(self) -> str:
        return f"Refuse({self.message})"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:  # noqa: ARG002
        """Say it and fail."""
        tell_failure(host, self.message)
        return False


class Explained(StringCommand):
    """A shell command whose failure is told in words.

    *explain* gets everything that the command printed and returns the cause and the next step.
    """

    def __init__(self, *bits: object, explain: Callable[[str], str], **arguments: Any) -> None:
        super().__init__(*bits, **arguments)
        self.explain = explain

    def execute(
        self, state: State, host: Host, connector_arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """Run; a failure is explained instead of printed: the explanation quotes what matters."""
        try:
            done, output = cast(
                "tuple[bool, CommandOutput]", super().execute(state, host, connector_arguments)
            )
        except (OSError, SSHException) as error:
            tell_failure(host, _lost(host, error))
            return False, CommandOutput([])
        if done:
            return done, output
        tell_failure(host, self.explain(output.output))
        return done, CommandOutput([])


class Script(Explained):
    """A multi-line POSIX shell script, run with ``set -eu``; *stdin* may carry a payload."""

    def __init__(
        self, script: str, *, explain: Callable[[str], str], stdin: str | None = None
    ) -> None:
        arguments = {"_stdin": stdin} if stdin is not None else {}
        super().__init__(f"set -eu\n{script.strip()}", explain=explain, **arguments)


def last_lines(output: str, count: int = 12) -> str:
    """The last *count* non-empty lines of *output*, for an explanation."""
    lines = [line for line in output.splitlines() if line.strip()]
    return "\n".join(lines[-count:])


def _lost(host: Host, error: Exception) -> str:
    address = host.data.get("ssh_hostname") or host.name
    return (
        f"{error or type(error).__name__}: the host went down, or the network between\n"
        f"Look at: ping -c 3 {address}; then run the deploy again: it repairs what is half done"
    )


def in_words(what: str) -> Callable[[str], str]:
    """The explanation of a command that seldom fails: *what* did not work, and what it said."""

    def explain(output: str) -> str:
        return (
            f"{what}: {last_lines(output, 3) or 'the command said nothing'}\n"
            "Put that right on the host, then run the deploy again; -vvv prints every command"
        )

    return explain
