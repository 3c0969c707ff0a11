"""Real nginx and HAProxy on loopback, from a configuration in a directory of the test's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tests.agent.host import until
from tests.tools import proxy

__all__ = ["Proxy", "certificate", "haproxy", "nginx", "started"]


class Proxy:
    """One that runs. ``reload`` has it read its configuration again, as systemd would."""

    def __init__(self, process: subprocess.Popen[bytes], reload: int) -> None:
        self.process = process
        self._reload = reload

    def reload(self) -> None:
        os.kill(self.process.pid, self._reload)

    def workers(self) -> set[int]:
        """Its processes that do the work."""
        pid = self.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@contextmanager
def nginx(scratch: Path, port: int, http: str) -> Iterator[Proxy]:
    """nginx with *http* in its ``http`` block, listening on *port*."""
    scratch.chmod(0o755)
    file = scratch / "nginx.conf"
    places = " ".join(
        f"{name}_temp_path {scratch};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file.write_text(
        f"daemon off; worker_processes 2; pid {scratch}/nginx.pid; error_log {scratch}/error.log;\n"
        f"events {{ worker_connections 4096; }}\nhttp {{ {places}\n{http}\n}}\n"
    )
    program, environment = proxy("nginx")
    argv = [program, "-p", str(scratch), "-c", str(file), "-e", str(scratch / "error.log")]
    with _running(argv, environment, port, signal.SIGHUP) as one:
        yield one


@contextmanager
def haproxy(scratch: Path, port: int, rest: str) -> Iterator[Proxy]:
    """HAProxy (master and worker) with *rest* behind defaults for HTTP, listening on *port*."""
    file = scratch / "haproxy.cfg"
    file.write_text(
        "global\n    maxconn 4096\ndefaults\n    mode http\n    timeout connect 2s\n"
        f"    timeout client 1h\n    timeout server 1h\n{rest}\n"
    )
    program, environment = proxy("haproxy")
    with _running([program, "-W", "-q", "-f", str(file)], environment, port, signal.SIGUSR2) as one:
        yield one


@contextmanager
def _running(
    argv: list[str], environment: dict[str, str], port: int, reload: int
) -> Iterator[Proxy]:
    with started(argv, environment) as process:
        until(_listens(process, port))
        yield Proxy(process, reload)


@contextmanager
def started(
    argv: list[str], environment: dict[str, str], output: IO[Any] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A master and its workers, none of which outlives the block, or a test that is killed."""
    # Where a test's process is killed, no block ends: the kernel tells the master, which ends
    # its workers.
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", *argv],
        env=environment,
        stdout=output,
        stderr=output,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _listens(process: subprocess.Popen[bytes], port: int) -> Callable[[], bool]:
    def listens() -> bool:
        assert process.poll() is None, "it ended at once; it said why above"
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    return listens


def certificate(scratch: Path) -> tuple[Path, Path]:
    """A CA, and the certificate (with its key) that it gave 127.0.0.1."""
    ca, key = scratch / "ca.pem", scratch / "ca.key"
    pair, request = scratch / "site.pem", scratch / "site.csr"
    openssl = ["openssl"]
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _quiet([*openssl, *new, "-x509", "-days", "2", "-subj", "/CN=lab", "-keyout", key, "-out", ca])
    _quiet([*openssl, *new, "-subj", "/CN=gw", "-keyout", scratch / "site.key", "-out", request])
    names = scratch / "names"
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    by = ["-CA", ca, "-CAkey", key, "-CAcreateserial", "-days", "2", "-extfile", names]
    _quiet([*openssl, "x509", "-req", "-in", request, *by, "-out", scratch / "site.crt"])
    pair.write_text((scratch / "site.crt").read_text() + (scratch / "site.key").read_text())
    return ca, pair


def _quiet(argv: list[object]) -> None:
    subprocess.run(list(map(str, argv)), check=True, capture_output=True)
