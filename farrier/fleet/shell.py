"""One host, by SSH: commands, as root where needed, and its agent."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import paramiko
from farrier_agent.control.errors import ProtocolError
from farrier_agent.control.protocol import News

from farrier.explain import explain_sudo
from farrier.fleet.answers import AgentReply, Hearing
from farrier.fleet.connecting import opened
from farrier.fleet.conversation import QUIET, Hear, Lines, converse
from farrier.fleet.errors import (
    LostError,
    NoAgentError,
    NoAnswerError,
    SudoError,
    UnreachableError,
)
from farrier.fleet.target import Target

__all__ = ["Done", "Shell"]

_NO_STATUS = -1
_LOCALE = "LC_ALL=C.UTF-8"
"""sudo's complaints are recognised by their words."""
_LEASH = """\
exec 3<&0
setsid sh -c {command} </dev/null 3<&- & it=$!
{{ cat <&3; kill -- -$it; }} >/dev/null 2>&1 & rope=$!
exec 3<&-
wait $it; code=$?
kill $rope 2>/dev/null
exit $code
"""
"""Ends the command when its standard input does: sshd says nothing else to a program without a
terminal when its connection is gone."""
_MISSING = ("command not found", "not found", "No such file")


@dataclass(frozen=True)
class Done:
    """How a command ended. ``stdout`` is empty where its lines were handed out as they came.

    ``code`` is -1 when a signal ended it.
    """

    code: int
    stdout: str
    stderr: str


class Shell:
    """*target* by SSH. Connects with the first command, and again after the connection was lost.

    A command is never sent twice: one that was under way when the connection broke raises
    :class:`LostError`, the next one connects anew. Several threads may use one Shell.
    """

    def __init__(self, target: Target, *, quiet: float = QUIET) -> None:
        """After *quiet* seconds without a word of a command its host is asked whether it lives."""
        self.target = target
        self._quiet = quiet
        self._lock = threading.Lock()
        self._connection: Any = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def connect(self) -> None:
        """Connect, if it is not connected. Raises :class:`UnreachableError`."""
        self._transport()

    def close(self) -> None:
        """Let go of the connection; commands under way in other threads get LostError."""
        self._closed = True
        with self._lock:
            self._drop()

    def run(
        self,
        command: str,
        *,
        stdin: bytes | None = None,
        sudo: bool = True,
        timeout: float | None = None,
        on_line: Hear | None = None,
        on_error_line: Hear | None = None,
        leash: bool = False,
    ) -> Done:
        """Run the shell *command*, as root with *sudo*, and wait for its end.

        *timeout* in seconds from the sending on; None waits as long as the connection lives. Each
        line of output goes to *on_line* as it comes, and of standard error to *on_error_line*.
        With *leash*, and without *stdin*, the command is ended on the host when this call is, or
        the connection: it would otherwise run on. Raises :class:`ShellError`. Secrets belong into
        *stdin*, never into *command*.
        """
        as_root = sudo and self.target.login.user != "root"
        command = _LEASH.format(command=shlex.quote(command)) if leash else command
        words = f"{_LOCALE} sudo -n -- sh -c {shlex.quote(command)}" if as_root else command
        out, err = Lines(on_line), Lines(on_error_line)
        code = self._conversed(words, None if leash else stdin or b"", timeout, (out, err))
        done = Done(code, out.end(), err.end())
        if as_root and done.code == 1 and not done.stdout:
            told = explain_sudo(done.stderr, self.target.login.user)
            if told:
                raise SudoError.told(self.target.name, told)
        return done

    def agent(
        self,
        *argv: str,
        stdin: bytes | None = None,
        timeout: float | None = None,
        on_news: Callable[[News], None] | None = None,
    ) -> AgentReply:
        """``farrier-agent ARGV --json`` on the host: its last word, its news as they come.

        Raises :class:`ShellError`; a refusal or failure of the agent is no exception.
        """
        hearing = Hearing(on_news)
        # --json behind the verb, before a command that `act run -- CMD` may carry
        words = shlex.join(["farrier-agent", argv[0], *_with_json(argv[1:])])
        try:
            done = self.run(words, stdin=stdin, timeout=timeout, on_line=hearing.line)
        except ProtocolError as error:
            raise NoAgentError(
                self.target.name, f"its agent cannot be understood: {error}", error.next or ""
            ) from error
        if done.code in (1, 127) and "farrier-agent" in done.stderr:
            last = done.stderr.strip().splitlines()[-1]
            if last.endswith(_MISSING) or "command not found" in last:
                raise NoAgentError(
                    self.target.name,
                    "it has no farrier-agent",
                    f"pyinfra --limit {self.target.name} inventory deploys/llm.py",
                )
        return hearing.reply(done.code, done.stderr)

    def _session(self) -> Any:
        """A channel on a connection that lives; nothing has been sent on it yet."""
        for again in (True, False):
            transport = self._transport()
            try:
                return transport.open_session(timeout=self.target.login.timeout)
            except (paramiko.SSHException, EOFError, OSError) as error:
                with self._lock:
                    self._drop()
                if not again:
                    raise UnreachableError(
                        self.target.name,
                        f"connected, and no session can be opened: {error or 'it closed it'}",
                        f"{self.target.login.ssh} true",
                    ) from error
        raise AssertionError

    def _transport(self) -> Any:
        with self._lock:
            if self._closed:
                raise UnreachableError(self.target.name, "this shell was closed")
            transport = self._connection.transport if self._connection else None
            if transport is None or not transport.is_active():
                self._drop()
                self._connection = opened(self.target.name, self.target.login)
            return self._connection.transport

    def _drop(self) -> None:
        if self._connection is None:
            return
        self._connection.client.close()
        gateway = self._connection.gateway
        while gateway is not None and not isinstance(gateway, str):
            gateway.client.close()
            gateway = gateway.gateway
        self._connection = None

    def _conversed(
        self, command: str, stdin: bytes | None, timeout: float | None, streams: tuple[Lines, Lines]
    ) -> int:
        channel = self._session()
        try:
            code = converse(
                channel,
                command,
                streams,
                stdin=stdin,
                timeout=timeout,
                quiet=self._quiet,
                alive=lambda: self._alive(channel.get_transport()),
            )
        except TimeoutError as error:
            raise self._silent(timeout or 0.0) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(error) from error
        finally:
            channel.close()
        if code == _NO_STATUS:
            # of a connection that broke, the channels end a moment before the transport does
            transport = channel.get_transport()
            transport.join(0.5)
            if not transport.is_active():
                raise self._lost("")
        return code

    def _alive(self, transport: Any) -> None:
        """Raise what paramiko raises unless the host's sshd answers.

        Its kernel may answer TCP's keep-alive for a host in which nothing runs any more.
        """
        with suppress(paramiko.ChannelException):  # it answers: no (MaxSessions)
            transport.open_session(timeout=self.target.login.timeout).close()

    def _silent(self, timeout: float) -> NoAnswerError:
        ssh = self.target.login.ssh
        return NoAnswerError(
            self.target.name,
            f"no end within {timeout:g} s; what was begun may still run there",
            f"{ssh} uptime",
        )

    def _lost(self, error: object) -> LostError:
        why = f" ({error})" if str(error) else ""
        return LostError(
            self.target.name,
            f"the connection was lost{why}; what was begun may still run there",
            f"{self.target.login.ssh} true",
        )


def _with_json(words: tuple[str, ...]) -> list[str]:
    cut = words.index("--") if "--" in words else len(words)
    return [*words[:cut], "--json", *words[cut:]]
