"""What a host's nginx is told, as ``nginx -T`` prints it, and what in it would break a drain.

A directive counts where it works: nginx takes the nearest one around a location, whatever file it
came from. So a file of the operator's own that spoils a replica's path is found, and one that does
not is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

__all__ = ["Block", "parse", "weaknesses"]

NGINX_USER = "www-data"
"""Whose sockets the agent counts (``nginx_user`` in agent.toml, by default)."""
WANTED = {
    "open_file_cache": ("off", "a cached look at the gate's file keeps a closed gate open"),
    "proxy_request_buffering": ("on", "a half-sent upload is no socket to the engine"),
    "proxy_buffering": ("on", "an answer that nginx keeps is no socket to the engine"),
    "proxy_cache": ("off", "an answer of before is no answer of a drained engine"),
    "proxy_next_upstream": ("error timeout", "what broke on the way may have been executed"),
    "proxy_method": ("off", "it is another request than the client's"),
    "mirror": ("off", "every request is executed twice, and once past the gate"),
    "gzip": ("off", "a stream is held back"),
}
"""Directives that have to be off around a way to an engine, nginx's default, and why."""
_TOKEN = re.compile(r"""\s+|#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]|(?:\$\{|[^\s{};])+""")
_FILE = re.compile(r"^# configuration file (.+):$", re.MULTILINE)


@dataclass
class Block:
    """``name arguments { … }``: its simple directives in order, and the blocks in it."""

    name: str = "main"
    arguments: tuple[str, ...] = ()
    parent: Block | None = None
    directives: list[tuple[str, ...]] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def __str__(self) -> str:
        return " ".join((self.name, *self.arguments))

    def all(self) -> Iterator[Block]:
        """This block and every one in it."""
        yield self
        for block in self.blocks:
            yield from block.all()

    def own(self, name: str) -> list[tuple[str, ...]]:
        """The arguments of each directive *name* of its own."""
        return [words[1:] for words in self.directives if words[0] == name]

    def effective(self, name: str) -> list[tuple[str, ...]]:
        """Those that work here: its own, or else those of the nearest block around it."""
        here: Block | None = self
        while here is not None:
            if found := here.own(name):
                return found
            here = here.parent
        return []


def parse(printed: str) -> Block:
    """The tree of what ``nginx -T`` *printed*, with the included files in their places."""
    parts = _FILE.split(printed)
    files = dict(zip(parts[1::2], parts[2::2], strict=True))
    root = Block()
    _fill(root, next(iter(files.values())), files)
    return root


def _fill(block: Block, text: str, files: dict[str, str]) -> None:
    words: list[str] = []
    for token in _TOKEN.findall(text):
        if token == ";":
            if words[0] == "include":
                for path in sorted(files):
                    if fnmatchcase(path, words[1]):
                        _fill(block, files[path], files)
            elif words:
                block.directives.append(tuple(words))
            words = []
        elif token == "{":
            inner = Block(words[0], tuple(words[1:]), block)
            block.blocks.append(inner)
            # The position of an `if` among its neighbours matters: rewrite works in order.
            block.directives.append(("{", str(len(block.blocks) - 1)))
            block, words = inner, []
        elif token == "}":
            assert block.parent is not None
            block = block.parent
        elif not token.isspace() and not token.startswith("#"):
            words.append(token.strip("\"'"))


def weaknesses(root: Block, engines: dict[int, str]) -> list[str]:
    """What would break a drain, a line each. *engines* maps a loopback port to its replica."""
    found = []
    user = root.own("user")
    if not user or user[0][0] != NGINX_USER:
        found.append(f"user is not {NGINX_USER}: no request would be counted as in flight")
    for block in root.all():
        if block.own("worker_shutdown_timeout"):
            found.append("worker_shutdown_timeout: old workers cut their streams")
        for to, *_ in block.own("proxy_pass"):
            found += [f"{block}: {problem}" for problem in _way(root, block, to, engines)]
    return found


def _way(root: Block, block: Block, to: str, engines: dict[int, str]) -> Iterator[str]:
    """What is wrong with a block that passes requests *to* an engine."""
    host = re.sub(r"^https?://", "", to).partition("/")[0]
    groups = _groups(root, host)
    several = bool(groups) and "$" in host
    targets = [one[0] for group in groups for one in group.own("server")] if groups else [host]
    ports = {int(one.rpartition(":")[2]) for one in targets if re.search(r":\d+$", one)}
    replicas = {engines[port] for port in ports if port in engines}
    if not replicas and "$" not in host:
        return
    for group in groups:
        if not several or group.own("keepalive"):
            yield f"{group}: a connection that is kept counts as a request in flight"
    for name, (default, why) in WANTED.items():
        if name == "proxy_next_upstream" and several:
            continue
        for value, *_ in block.effective(name) or [(default,)]:
            if value != "off":
                yield f"{name} {value}: {why}"
    headers = {one[0].lower(): one[1] for one in block.effective("proxy_set_header")}
    if headers.get("connection") != "close":
        yield "no `Connection close`: a connection that is kept counts as a request in flight"
    if block.effective("proxy_intercept_errors") != [("on",)]:
        yield "proxy_intercept_errors off: an engine's own 425 would be tried again elsewhere"
    if block.effective("lingering_close") == [("off",)]:
        yield "lingering_close off: a refused upload is reset before its client reads why"
    if several:
        yield from _several(block, host, groups, engines)
    else:
        yield from _gate(block, replicas)


def _groups(root: Block, host: str) -> list[Block]:
    """The groups of servers that *host* may name: several where a variable ends it."""
    name, variable, _ = host.partition("$")
    return [
        one
        for one in root.all()
        if one.name == "upstream"
        and (one.arguments == (host,) or (variable and name and one.arguments[0].startswith(name)))
    ]


def _several(
    block: Block, host: str, groups: list[Block], engines: dict[int, str]
) -> Iterator[str]:
    """A group is chosen by the gates that are open, and has the replicas behind these alone."""
    tried = {word for words in block.effective("proxy_next_upstream") for word in words}
    if not tried <= {"off", "error", "timeout"}:
        yield f"proxy_next_upstream {' '.join(sorted(tried))}: what was executed is repeated"
    prefix, _, variable = host.partition("$")
    parts: dict[str, str] = {}
    none_open = False
    for name, *arguments in block.directives:
        inner = block.blocks[int(arguments[0])] if name == "{" else None
        if inner is None or inner.name != "if":
            continue
        gate = re.fullmatch(r"/run/farrier/open/(.+)\)", inner.arguments[-1])
        for to, value in inner.own("set"):
            if inner.arguments[0] == "(-f" and gate and to == f"${variable}":
                parts[gate[1]] = value.removeprefix(f"${{{variable}}}")
        none_open = none_open or (
            inner.arguments[0] == f"(${variable}" and bool(inner.own("return"))
        )
    if not none_open:
        yield f"without an answer while no gate is open: {host}"
    for group in groups:
        ports = {int(one[0].rpartition(":")[2]) for one in group.own("server")}
        members = [engines.get(port, "?") for port in sorted(ports)]
        if (
            group.arguments[0]
            != prefix + "".join(part for replica, part in parts.items() if replica in members)
            or not set(members) <= parts.keys()
        ):
            yield f"{group}: without the gate of {' and '.join(members)}"


def _gate(block: Block, replicas: set[str]) -> Iterator[str]:
    """Every way passes the gate of its replica before anything else that could answer."""
    for replica in replicas or {"?"}:
        gate = ("(!-f", f"/run/farrier/open/{replica})")
        for name, *arguments in block.directives:
            inner = block.blocks[int(arguments[0])] if name == "{" else None
            if inner is not None and inner.name == "if" and inner.arguments == gate:
                if inner.own("return"):
                    break
            elif name in {"proxy_pass", "rewrite", "try_files"}:
                yield f"{name} before the gate of {replica}"
                break
        else:
            yield f"without the gate of {replica}"
