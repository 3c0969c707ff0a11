"""No secret is ever readable by others: watched while deploys write keys, and looked for after.

What a key could leak into: arguments and environments of processes, here and on the hosts; files
that others may read, however short-lived; the journal (sudo logs every command); pyinfra's output
at its most talkative. A key counts as leaked as it is, in hex and in base64 (in which a file's
content travels); so does its SHA-256, by which hosts know it, and the key of a gateway's
certificate.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from farrier.lab.certificates import certificate_of
from farrier.lab.machines import processes
from farrier.lab.state import LabFiles
from tests.roles import watcher
from tests.roles.converging import PYINFRA, ROOT, Converge
from tests.roles.fleet import Fleet

KEYS_MAPS = {
    "gpu02": "/etc/nginx/farrier/keys.map",
    "gpu03": "/etc/nginx/farrier/keys.map",
    "gw01": "/etc/haproxy/farrier/keys.map",
}
"""Where hosts have the hashes of keys; the keys themselves are nowhere."""
HOSTS = tuple(KEYS_MAPS)
GATEWAY = "gw01"
CERTIFICATE = "/etc/haproxy/farrier/tls.pem"
IN_MEMORY = ("run", "tmp", "dev/shm")
"""File systems of their own on a host."""


def forms(secret: str) -> dict[str, str]:
    """How *secret* may look: as it is, in hex, and inside of a longer text in base64."""
    found = {"plain": secret, "hex": secret.encode().hex()}
    for shift in range(3):
        text = base64.b64encode(b"-" * shift + secret.encode() + b"---").decode()
        # The letters that say nothing of what stands before and behind.
        first, last = -(-8 * shift // 6), 8 * (shift + len(secret)) // 6
        found[f"base64-{shift}"] = text[first:last]
    return found


def needles(keys: Mapping[str, str]) -> dict[str, str]:
    """All forms of all *keys*, by name and form."""
    return {
        f"{name}-{form}": text for name, key in keys.items() for form, text in forms(key).items()
    }


def leaks(text: str, keys: Mapping[str, str]) -> list[str]:
    """Which of *keys* stand in *text*, in which form."""
    return [name for name, needle in needles(keys).items() if needle in text]


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "~^[Bb]earer "])
def test_a_key_is_recognised_wherever_it_stands(before: str) -> None:
    key = secrets.token_hex(24)
    text = f'{before}{key}$" alice;\n'
    (found,) = leaks(base64.b64encode(text.encode()).decode(), {"k": key})
    assert found.startswith("k-base64-")
    assert "k-plain" in leaks(text, {"k": key})
    assert leaks(text.encode().hex(), {"k": key}) == ["k-hex"]


class Watch:
    """What the watcher found, once it has ended."""

    def __init__(self) -> None:
        self.since = time.time()
        self.found: list[tuple[str, str, str]] = []


@contextmanager
def watched(fleet: Fleet, keys: Mapping[str, str]) -> Iterator[Watch]:
    """The watcher at work on :data:`HOSTS` and on this machine."""
    places = [tempfile.gettempdir(), str(ROOT)]
    for host in fleet.lab.hosts:
        if host.name in HOSTS:
            guest = processes(LabFiles(fleet.lab.name).host(host.name))["guest"]
            root = f"/proc/{min(guest)}/root"
            places += [str(host.root), *(f"{root}/{place}" for place in IN_MEMORY)]
    watch = Watch()
    with subprocess.Popen(
        [sys.executable, watcher.__file__, *places],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for name, needle in needles(keys).items():
            process.stdin.write(f"{name} {needle}\n")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "watching\n"
        yield watch
        found, _ = process.communicate(timeout=60)
    watch.found = [(how, name, where) for how, name, where in json.loads(found)]


def at_rest(fleet: Fleet, host: str, since: float, keys: Mapping[str, str]) -> dict[str, int]:
    """The files on *host*, written after *since*, that have one of *keys*; with their modes."""
    disk = LabFiles(fleet.lab.name).host(host)
    (init,) = {min(processes(disk)["guest"])}
    found = {}
    for top in (disk.upper, *(Path(f"/proc/{init}/root/{place}") for place in IN_MEMORY)):
        for directory, _, names in os.walk(top):
            for name in names:
                path = Path(directory, name)
                if path.is_symlink() or not path.is_file() or path.stat().st_mtime < since:
                    continue
                if leaks(path.read_bytes().decode(errors="replace"), keys):
                    found[f"/{path.relative_to(top)}"] = path.stat().st_mode & 0o7777
    return found


def journal(fleet: Fleet, host: str, since: float) -> str:
    """All that *host* logged after *since*, every field of it; lengths of fields are no text."""
    command = f"journalctl -q -o export --no-pager --since=@{int(since)}"
    return fleet.root(host, f"{command} | LC_ALL=C tr -c '[:print:]\\n' '?'")


def new_keys(file: Path) -> dict[str, str]:
    """Rotate: keys that nobody has seen before, in *file*."""
    keys = {"alice": secrets.token_hex(24), "batch-jobs": secrets.token_urlsafe(33).strip("-_")}
    file.touch(mode=0o600)
    file.write_text("[keys]\n" + "".join(f'{name} = "{key}"\n' for name, key in keys.items()))
    return keys


def hashed(keys: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of each of *keys*."""
    return {
        f"{name}-sha256": hashlib.sha256(key.encode()).hexdigest() for name, key in keys.items()
    }


def new_certificate(file: Path) -> dict[str, str]:
    """A certificate for the gateway in *file*; of its key the line that has most of what counts."""
    _, content = certificate_of("farrier tests", [GATEWAY])
    file.touch(mode=0o600)
    file.write_text(content)
    _, _, key = content.partition("PRIVATE KEY-----\n")
    return {"certificate": key.splitlines()[1]}


def typed(
    converge: Converge, options: Sequence[str], data: Mapping[str, Mapping[str, object]]
) -> subprocess.CompletedProcess[str]:
    """``pyinfra OPTIONS inventory deploys/llm.py`` as an operator types it: not for programs."""
    limits = [word for host in HOSTS for word in ("--limit", host)]
    return subprocess.run(
        [str(PYINFRA), *options, *limits, "inventory", "deploys/llm.py"],
        cwd=ROOT,
        env=converge.environment(data=data),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_watcher_sees_what_others_could_see(fleet: Fleet) -> None:
    """Leaks on purpose, of keys that open nothing: each kind has to be found."""
    names = ("argument", "sudo", "variable", "file", "memory", "rest", "private", "here")
    decoys = {name: secrets.token_hex(24) for name in names}
    encoded = base64.b64encode(f"x {decoys['memory']}\n".encode()).decode()
    try:
        with watched(fleet, decoys) as watch:
            for host in HOSTS:
                # A program of a millisecond may get past the watcher on a loaded machine, not 20.
                again = "for i in $(seq 20); do %s; done"
                fleet.ssh(host, again % f"/bin/true {decoys['argument']}")
                fleet.ssh(host, f"sudo true {decoys['sudo']}")
                fleet.ssh(host, again % f"VARIABLE={decoys['variable']} /bin/true")
                fleet.ssh(host, "cat > /tmp/leak; rm /tmp/leak", stdin=decoys["file"])
                fleet.ssh(host, "cat > /dev/shm/leak; rm /dev/shm/leak", stdin=encoded)
                fleet.root(host, "cat > /etc/leak", stdin=decoys["rest"])
                fleet.ssh(host, "umask 077; cat > /tmp/safe; rm /tmp/safe", stdin=decoys["private"])
            with tempfile.NamedTemporaryFile("w") as file:
                Path(file.name).chmod(0o644)
                file.write(decoys["here"])
        found = {
            (how, name.partition("-")[0], where.split(" ")[0]) for how, name, where in watch.found
        }
        expected = {
            ("argv", "argument", "/bin/true"),
            ("argv", "sudo", "sudo"),
            ("environ", "variable", "/bin/true"),
            ("file", "file", "/tmp/leak"),
            ("file", "memory", "/dev/shm/leak"),
            ("file", "rest", "/etc/leak"),
            ("file", "here", file.name),
        }
        assert expected - found == set()
        assert not any(name == "private" for _, name, _ in found)
        for host in HOSTS:
            resting = at_rest(fleet, host, watch.since, decoys)
            assert resting.pop("/etc/leak") == 0o644
            assert all(path.startswith("/var/log/journal/") for path in resting), resting
            assert "sudo-plain" in leaks(journal(fleet, host, watch.since), decoys)
    finally:
        for host in HOSTS:
            fleet.root(host, "rm -f /etc/leak")


def test_keys_are_nobody_elses_business_while_they_are_rotated(
    fleet: Fleet, converge: Converge, tmp_path: Path
) -> None:
    rotation = [tmp_path / f"keys-{number}.toml" for number in range(3)]
    first, second, third = (new_keys(file) for file in rotation)
    keys = {
        f"{number}-{name}": key
        for number, keys in enumerate((first, second, third))
        for name, key in keys.items()
    }
    kept = hashed(keys) | {
        f"{number}-{name}": line
        for number, file in enumerate(rotation)
        for name, line in new_certificate(file.with_suffix(".pem")).items()
    }
    seen = keys | kept

    def data(file: Path) -> dict[str, dict[str, object]]:
        said = {host: {**converge.data.get(host, {}), "api_keys_file": str(file)} for host in HOSTS}
        said[GATEWAY]["gateway_tls_certificate"] = str(file.with_suffix(".pem"))
        return said

    def models(host: str, key: str) -> int:
        port = 80 if host == GATEWAY else 8080
        return fleet.request(host, "/v1/models", port=port, key=key).status

    outputs: dict[str, str] = {}
    try:
        with watched(fleet, seen) as watch:
            run = typed(converge, ["-y", "-vvv", "--diff"], data(rotation[0]))
            assert run.returncode == 0, run.stderr[-3000:]
            outputs["talkative"] = run.stdout + run.stderr
            assert "keys.map" in outputs["talkative"]
            for host in HOSTS:
                assert models(host, first["alice"]) == 200, "the key was not written"

            for options in (["--dry", "--diff", "-vvv"], ["--debug-operations"], ["--debug-facts"]):
                run = typed(converge, options, data(rotation[1]))
                assert run.returncode == 0, run.stderr[-3000:]
                outputs[options[0]] = run.stdout + run.stderr

            for host in HOSTS:  # the file cannot be written: what is told of it?
                fleet.root(host, f"mkdir {KEYS_MAPS[host]}.farrier-new")
            refused = converge("-vvv", limit=HOSTS, data=data(rotation[1]))
            outputs["refused"] = refused.stdout + refused.stderr
            assert refused.returncode == 1
            for host in HOSTS:
                assert f"{KEYS_MAPS[host]} could not be changed" in refused.stderr
                fleet.root(host, f"rmdir {KEYS_MAPS[host]}.farrier-new")

            rotated = converge("-vvv", limit=HOSTS, data=data(rotation[2]))
            assert rotated.returncode == 0, rotated.last_words()
            outputs["json"] = rotated.stdout + rotated.stderr
            for host in HOSTS:
                role = "Gateway" if host == GATEWAY else "nginx"
                assert f"{role} | Configuration" in rotated.changed(host)
                assert models(host, third["alice"]) == 200
                assert models(host, first["alice"]) == 401

        assert watch.found == []
        assert [name for name, text in outputs.items() if leaks(text, seen)] == []
        for host in HOSTS:
            assert at_rest(fleet, host, watch.since, keys) == {}
            private = [KEYS_MAPS[host], *([CERTIFICATE] if host == GATEWAY else [])]
            assert at_rest(fleet, host, watch.since, kept) == dict.fromkeys(private, 0o600)
            assert leaks(journal(fleet, host, watch.since), seen) == []
            for path in private:
                assert fleet.ssh(host, f"cat {path} 2>&1", check=False).endswith("denied\n")
    finally:
        converge(limit=HOSTS)
    for host in HOSTS:
        assert fleet.chat(host, port=80 if host == GATEWAY else 8080).status == 200
