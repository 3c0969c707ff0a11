"""A stand-in for Grafana's package, in a repository of the real one's layout.

It reads what the real grafana-server reads of what the role writes: its settings from the
environment with ``$__file{…}`` filled in, the provisioned sources and dashboards, the password of
``admin`` at its first start only. It answers /api/health, and with that password /api/datasources
and /api/search. It draws nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes.nvidia_repo import layout
from tests.fakes.nvidia_repo.debs import Package, build
from tests.fakes.nvidia_repo.serving import serve_files
from tests.fakes.nvidia_repo.signing import Signer

__all__ = ["grafana_repository"]

_PROGRAM = r'''#!/usr/bin/python3
"""Stand-in for grafana-server."""
import base64, glob, json, os, re
from http.server import BaseHTTPRequestHandler, HTTPServer

def setting(name, otherwise):
    value = os.environ.get("GF_" + name, otherwise)
    return re.sub(r"\$__file\{(.*?)\}", lambda found: open(found[1]).read().strip(), value)

database = "/var/lib/grafana/standin.json"
if not os.path.exists(database):
    json.dump({"admin": setting("SECURITY_ADMIN_PASSWORD", "admin")}, open(database, "w"))
password = json.load(open(database))["admin"]
provisioning = setting("PATHS_PROVISIONING", "/etc/grafana/provisioning")
said = lambda kind, key: [
    line.split(":", 1)[1].strip()
    for path in glob.glob(provisioning + "/" + kind + "/*.yaml")
    for line in open(path) if line.strip().startswith(key + ":")
]
dashboards = [
    json.load(open(path))
    for place in said("dashboards", "path") for path in glob.glob(place + "/*.json")
]

class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = "Basic " + base64.b64encode(b"admin:" + password.encode()).decode()
        if self.path == "/api/health":
            status, body = 200, {"database": "ok", "version": "stand-in"}
        elif self.headers.get("Authorization") != wanted:
            status, body = 401, {"message": "Unauthorized"}
        elif self.path == "/api/search":
            status, body = 200, sorted(one["title"] for one in dashboards)
        elif self.path == "/api/datasources":
            status, body = 200, said("datasources", "url")
        else:
            status, body = 404, {}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_): pass

address = setting("SERVER_HTTP_ADDR", ""), int(setting("SERVER_HTTP_PORT", "3000"))
HTTPServer(address, Answers).serve_forever()
'''
_UNIT = """\
# Stand-in, with what the real unit has that matters here.
[Service]
User=grafana
Group=grafana
RuntimeDirectory=grafana
StateDirectory=grafana
ExecStart=/usr/share/grafana/standin
[Install]
WantedBy=multi-user.target
"""
_POSTINST = """\
getent group grafana >/dev/null || groupadd --system grafana
getent passwd grafana >/dev/null || useradd --system --gid grafana --no-create-home grafana
systemctl daemon-reload
"""


@contextmanager
def grafana_repository(address: str) -> Iterator[dict[str, Any]]:
    """Build, sign and serve it on *address*; gives the inventory's data that make hosts use it."""
    # gpg's socket has to have a short name
    work = Path(tempfile.mkdtemp(prefix="standin-", dir="/tmp"))
    signer = Signer(work / "gpg")
    server = None
    try:
        package = Package(
            "grafana",
            "13.2.2",
            {"Depends": "python3, passwd"},
            {
                "/usr/share/grafana/standin": _PROGRAM,
                "/usr/lib/systemd/system/grafana-server.service": _UNIT,
                "/etc/grafana/grafana.ini": "; stand-in\n",
            },
            {"postinst": _POSTINST},
            about="stand-in for Grafana",
        )
        layout.archive(work / "www", {"main": [build(package, work / "debs")]}, signer, "stable")
        server = serve_files(work / "www", address)
        url = f"http://{address}:{server.port}/ubuntu"
        yield {
            "grafana_repo_url": url,
            "grafana_repo_key_url": f"{url}/key.asc",
            "grafana_repo_fingerprint": signer.keys["good"].fingerprint,
        }
    finally:
        if server:
            server.stop()
        signer.stop()
        shutil.rmtree(work)
