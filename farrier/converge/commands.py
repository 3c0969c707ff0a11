"""Two kinds of command that pyinfra lacks: one that refuses, and one that explains its failure.

An exception inside an operation aborts the run on *every* host (measured with pyinfra 3.10); a
command that returns False fails its own host only, and the others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pyinfra import logger
from pyinfra.api.command import PyinfraCommand, StringCommand
from pyinfra.connectors.util import CommandOutput

from farrier.converge.report import note

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pyinfra.api import Host, State

    Commands = Generator[PyinfraCommand, None, None]

__all__ = ["Commands", "Explained", "Refuse", "Script", "last_lines"]


class Refuse(PyinfraCommand):
    """Fails the host with *message*, which names the cause and the next step. Runs nothing."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def __repr__(self) -> str:
        return f"Refuse({self.message})"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:  # noqa: ARG002
        """Say it and fail."""
        host.log_styled(self.message, fg="red", log_func=logger.error)
        note("failed", host.name, self.message)
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
        """Run; on failure add the explanation to the output and to the run's last lines."""
        done, output = cast(
            "tuple[bool, CommandOutput]", super().execute(state, host, connector_arguments)
        )
        if not done:
            message = self.explain(output.output)
            host.log_styled(message, fg="red", log_func=logger.error)
            note("failed", host.name, message)
        return done, output


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
