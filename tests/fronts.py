"""An engine on loopback as clients reach it: itself, its host's real nginx, a real gateway."""

from __future__ import annotations

import re
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from farrier.spec import AgentSettings, HostSpec, Model
from roles import nginx
from roles.nginx.clients import clients
from tests import proxies
from tests.agent.host import free_port
from tests.tools import proxy
from tests.unit.gateway_hosts import gateway, key

__all__ = ["Fronts", "fronts", "versions"]


@dataclass(frozen=True)
class Fronts:
    """Where the engine is asked, by way (farrier/fidelity_page.py), and the key that opens it."""

    urls: dict[str, str]
    key: str


@dataclass(frozen=True)
class _Fronted:
    """A host as a gateway has to know it."""

    spec: HostSpec


@contextmanager
def fronts(scratch: Path, model: Model) -> Iterator[Fronts]:
    """Both before the engine of *model*, which listens on its port, as the roles configure them.

    The host's nginx lets anybody in (its keys need a module that is no part of nginx's own
    package), the gateway whoever has the key.
    """
    with _agent() as check_port:
        spec = HostSpec(
            "gpu01",
            groups=("gpu",),
            accelerator="cpu",
            address="127.0.0.1",
            models=(model,),
            nginx_port=free_port(),
            agent=AgentSettings(check_port=check_port),
        )
        alice = key("alice")
        assert alice.key
        with (
            _nginx(scratch / "nginx", model) as own,
            _nginx(scratch / "behind", model, spec.nginx_port),
            gateway(_made(scratch / "gateway"), [_Fronted(spec)], [alice]) as before,
        ):
            before.settled()
            ports = {"engine": model.port, "nginx": own, "gateway": before.port}
            urls = {way: f"http://127.0.0.1:{port}/v1" for way, port in ports.items()}
            yield Fronts(urls, alice.key)


@contextmanager
def _nginx(scratch: Path, model: Model, behind: int | None = None) -> Iterator[int]:
    """The host's nginx, for anybody; with *behind* on that port, for this machine as a gateway."""
    port = behind or free_port()
    spec = HostSpec(
        "gpu01",
        groups=("gpu",),
        accelerator="cpu",
        models=(model,),
        nginx_port=port,
        open_access=True,
    )
    settings = nginx.DEFAULTS.data() | {"nginx_addresses": ["127.0.0.1"]}
    if behind:
        settings |= {"nginx_clients": "gateways", "nginx_gateways": ["127.0.0.1"]}
    let_in = clients(spec, settings)
    with tempfile.TemporaryDirectory(dir="/tmp") as gates:
        Path(gates).chmod(0o755)  # nginx's workers look for them as another user
        Path(gates, model.replica).touch()
        text = (
            nginx.site_text(spec, settings, let_in)
            .replace("include /etc/nginx/farrier/clients.conf;", nginx.clients_text(let_in))
            .replace("/run/farrier/open", gates)
            .replace("/run/farrier", str(scratch))
            .replace("/var/log/nginx", str(scratch))
        )
        with proxies.nginx(_made(scratch), port, "variables_hash_max_size 4096;\n" + text):
            yield port


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


class _Ready(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.readline(80)
        self.wfile.write(b"up ready 100%\n")


class _Checks(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextmanager
def _agent() -> Iterator[int]:
    """What a gateway asks of a host's agent: its replica takes requests."""
    with _Checks(("127.0.0.1", 0), _Ready) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def versions() -> str:
    """Of nginx and HAProxy, as they name themselves."""
    return ", ".join(f"{name} {_version(name)}" for name in ("nginx", "haproxy"))


def _version(name: str) -> str:
    program, environment = proxy(name)
    done = subprocess.run(
        [program, "-v"], env=environment, capture_output=True, text=True, check=True
    )
    found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    assert found, f"{name} -v tells no version"
    return found[0]
