"""A host's node of a replica's Ray, and who waits for all of them. Runs in vLLM's environment.

    ray-node run [--tell FILE …] -- start --head …     Ray's own program, which it becomes
    ray-node wait --address … --hosts … -- ENGINE …    the engine, once the cluster is whole

With ``--tell``, on the head, FILE says every two seconds how many nodes there are. A cluster that
was whole and has lost a node is of no use to its engine, whose workers there are gone: then this
program ends (exit code 3), and systemd begins with a new cluster, and the engine after it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

EVERY = 2.0
"""Seconds between two looks."""
PATIENCE = 5.0
"""Seconds for an answer."""
LOST = 3
"""Exit code: the cluster was whole, and is not."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Become what the command line says."""
    options = parse(arguments)
    if options.verb == "wait":
        wait(options)
        os.execvp(options.command[0], options.command)  # noqa: S606 - the unit's own words
    if options.tell:
        threading.Thread(target=watch, args=(options,), daemon=True).start()
    sys.argv = ["ray", *options.command]
    import_module("ray.scripts.scripts").main()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, as the role writes it into the unit."""
    parser = argparse.ArgumentParser(prog="ray-node")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, needed in (("run", False), ("wait", True)):
        add = verbs.add_parser(verb).add_argument
        add("--address", required=needed, help="the cluster's: address:port")
        add("--hosts", required=needed, type=_hosts, help="its nodes: name=address,…")
        add("--gpus", type=int, default=0, help="of each node [%(default)s]")
        add("command", nargs="+", help="after --")
        if verb == "run":
            add("--tell", help="the file that is written")
    return parser.parse_args(arguments)


def _hosts(text: str) -> dict[str, str]:
    return dict(one.split("=", 1) for one in text.split(","))


def lacking(nodes: Mapping[str, float], hosts: Mapping[str, str], gpus: int) -> list[str]:
    """What the cluster lacks, in words; *nodes* are the GPUs of those that live, by address."""
    words = []
    for name, address in hosts.items():
        if address not in nodes:
            words.append(f"{name} ({address}) is not there")
        elif nodes[address] < gpus:
            words.append(f"{name} ({address}) has {nodes[address]:g} GPUs of {gpus}")
    return words


def nodes_of(address: str) -> dict[str, float]:
    """The GPUs of each node that lives, by its address. Raises what Ray raises."""
    client = import_module("ray._raylet").GcsClient(address=address)
    return {
        one.node_manager_address: one.resources_total.get("GPU", 0.0)
        for one in client.get_all_node_info(timeout=PATIENCE).values()
        if one.state == 0  # ALIVE
    }


def wait(options: argparse.Namespace) -> None:
    """Return when the cluster is whole; say what it lacks whenever that is something else."""
    said = ""
    while True:
        try:
            words = lacking(nodes_of(options.address), options.hosts, options.gpus)
        except Exception as error:  # Ray has many, and each may pass
            words = [f"{options.address} does not answer ({type(error).__name__})"]
        if not words:
            say(f"Ray is whole: {', '.join(options.hosts)}")
            return
        if said != (said := "; ".join(words)):
            say(f"waiting for Ray: {said}")
        time.sleep(EVERY)


def watch(options: argparse.Namespace) -> None:
    """Tell how the cluster is, until it loses a node."""
    was_whole = False
    while True:
        try:
            nodes = nodes_of(options.address)
        except Exception:  # not up yet, or gone: then Ray's own program ends
            nodes = {}
        words = lacking(nodes, options.hosts, options.gpus)
        alive = sum(address in nodes for address in options.hosts.values())
        tell(options.tell, alive, len(options.hosts), words)
        if not words and not was_whole:
            say(f"Ray is whole: {', '.join(options.hosts)}")
        was_whole = was_whole or not words
        if words and was_whole and nodes:
            say(f"Ray has lost what its engine needs, and begins anew: {'; '.join(words)}")
            os._exit(LOST)
        time.sleep(EVERY)


def tell(path: str, alive: int, wanted: int, words: Sequence[str]) -> None:
    """Write *path*, which the agent reads."""
    told = {"at": time.time(), "nodes": alive, "wanted": wanted, "lacks": list(words)}
    new = Path(f"{path}.new")
    new.write_text(json.dumps(told), encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)


def say(words: str) -> None:
    """A line for the journal."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
