"""What a host is asked for the overview: one command, in which nothing is started that costs.

The agent's ``/status`` comes over loopback by bash itself: 5 ms of the host's CPU, where Python
and sudo take 150. Where that endpoint wants a password or TLS, ``farrier-agent`` is asked instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from farrier_agent import status
from farrier_agent.control.errors import ProtocolError
from farrier_agent.control.protocol import Failed, decode_reply
from farrier_agent.status import Status

from farrier.explain import explain_sudo
from farrier.fleet.errors import NoAgentError, SudoError
from farrier.fleet.shell import Done, Shell
from farrier.fleet.target import Target

__all__ = ["Look", "command", "look", "parsed"]

_RUNNING = "-- engines"

_COMMAND = """\
s=$(timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && \
printf "GET /status HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n" >&3 && cat <&3' 2>/dev/null)
case $s in
"HTTP/1."?" 200 "*) printf '%s\\n' "$s" ;;
*) {sudo}farrier-agent status --json || exit ;;
esac
echo '{mark}'
systemctl show --property=Id --property=MainPID 'engine-*.service' | while IFS='=' read -r k v; do
  case $k in
  Id) unit=$v ;;
  MainPID) pid=$v ;;
  esac
  if [ -n "$unit" ] && [ -n "$pid" ]; then
    [ "$pid" = 0 ] || echo "$unit $(tr '\\0' '\\n' <"/proc/$pid/cmdline" | head -n 1)"
    unit= pid=
  fi
done 2>/dev/null
exit 0
"""

_VERSIONED = re.compile(r"/opt/farrier/[^/]+/(?P<version>[^/]+)-[0-9a-f]{8}/")
"""Where Farrier installs engines; one that stands elsewhere has no version to be read there."""


@dataclass(frozen=True)
class Look:
    """What a host said: its agent's status, and the version of each engine that runs, by unit."""

    status: Status
    versions: Mapping[str, str] = field(default_factory=dict)


def command(target: Target) -> str:
    """The shell command for *target*; it needs no root where the agent's endpoint is open."""
    sudo = "" if target.login.user == "root" else "LC_ALL=C.UTF-8 sudo -n "
    return _COMMAND.format(port=target.agent_port, sudo=sudo, mark=_RUNNING)


def look(shell: Shell, timeout: float | None = None) -> Look:
    """Ask the host of *shell*. Raises :class:`farrier.fleet.ShellError`."""
    done = shell.run(command(shell.target), sudo=False, timeout=timeout)
    return parsed(done, shell.target)


def parsed(done: Done, target: Target) -> Look:
    """What :func:`command` printed. Raises :class:`SudoError`, :class:`NoAgentError`."""
    told, _, running = f"\n{done.stdout}".partition(f"\n{_RUNNING}\n")
    head, gap, body = told.lstrip("\n").replace("\r\n", "\n").partition("\n\n")
    if not (gap and head.startswith("HTTP/")):
        body = told
    body = body.strip()
    if done.code or not body:
        raise _refused(done, target, body)
    try:
        return Look(status.loads(body.encode()), dict(_versions(running)))
    except status.StatusError as error:
        raise NoAgentError(target.name, f"its agent cannot be understood: {error}") from error


def _refused(done: Done, target: Target, body: str) -> Exception:
    if sentence := explain_sudo(done.stderr, target.login.user):
        return SudoError.told(target.name, sentence)
    with suppress(ProtocolError):
        final = decode_reply(body.encode())  # over the socket it fails as it answers: in JSON
        if isinstance(final, Failed):
            return NoAgentError(
                target.name, final.error, f"{target.login.ssh} {final.next}" if final.next else ""
            )
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if "not found" in last:
        return NoAgentError(
            target.name,
            "it has no farrier-agent",
            f"pyinfra --limit {target.name} inventory deploys/llm.py",
        )
    what, _, step = last.removeprefix("farrier-agent: ").partition("; next: ")
    return NoAgentError(
        target.name, what, f"{target.login.ssh} {step or 'systemctl status farrier-agent'}"
    )


def _versions(running: str) -> list[tuple[str, str]]:
    found = []
    for line in running.splitlines():
        unit, _, program = line.partition(" ")
        if match := _VERSIONED.match(program):
            found.append((unit, match["version"]))
    return found
