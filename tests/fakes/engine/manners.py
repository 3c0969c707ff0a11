"""How the engine behaves: a value that is checked at the edge and can be replaced while it runs.

``answers`` is what a request gets, from now on and where it is being answered already:

- ``well``: its tokens, and for a stream ``data: [DONE]``;
- ``abort``: HTTP 200 and an end with ``finish_reason: abort`` (vLLM, whose core is shutting down);
- ``500``, ``503``: that status; ``close``: the connection is closed without an answer;
- ``break``: the connection is closed in the middle; ``undone``: a stream ends without ``[DONE]``;
- ``garbage``: HTTP 200 with something that is no completion;
- ``wedge``: nothing moves any more, and the metrics stay as they are, while ``/health`` stays 200.

``on_sigterm`` is what SIGTERM does:

- ``cut``: it dies at once (Ollama, llama-server);
- ``drain``: it stops listening, finishes what runs, and exits;
- ``finish``: it serves on, new requests too, until none is left, and exits (SGLang); what tells
  whether it is ready says that it is not;
- ``abort``, ``close``: as above, for requests that run and for new ones, until none is left (vLLM,
  by source, does the first);
- ``500``, ``503``: what runs is finished, new requests get that status (vLLM with
  ``--shutdown-timeout``: measured, 500);
- ``hang``: it stops listening, streams stand still with their connections open, and the process
  stays (vLLM's default: measured, ten minutes later still there);
- ``ignore``: nothing.

``dies_on`` is a text: a prompt that has it in it ends the process at once, after its execution has
begun (a poison prompt; empty: none does).

``fails_on`` is a text, too: a request with it in its prompt is answered as ``fails_with`` says, one
of the answers above (``500``, ``close`` or ``break``: a new version that fails for some).

``workers`` is how many processes beside it ignore SIGTERM; more can be had while it runs, fewer
not.

``on_gpus`` is the share of the model that is in the GPUs' memory, where the engine tells that.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, fields, replace

ANSWERS = ("well", "abort", "500", "503", "close", "break", "undone", "garbage", "wedge")
ENDINGS = ("cut", "drain", "finish", "abort", "close", "500", "503", "hang", "ignore")
MOST_WORKERS = 8


class MannersError(ValueError):
    """Manners that do not exist; the message names the field."""


@dataclass(frozen=True)
class Manners:
    """One way to behave. ``token_delay`` is seconds per word; ``metrics`` false means a 404."""

    answers: str = "well"
    on_sigterm: str = "cut"
    token_delay: float = 0.02
    metrics: bool = True
    workers: int = 0
    dies_on: str = ""
    fails_on: str = ""
    fails_with: str = "500"
    on_gpus: float = 1.0

    def changed(self, changes: object) -> Manners:
        """These manners with the fields of the JSON object *changes*. Raises MannersError."""
        if not isinstance(changes, dict):
            raise MannersError("manners are a JSON object")
        known = {field.name for field in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise MannersError(f"no such field: {name} (fields: {', '.join(sorted(known))})")
            _check(name, value)
        return replace(self, **changes)


def _check(name: str, value: object) -> None:
    choices = {"answers": ANSWERS, "on_sigterm": ENDINGS, "fails_with": ANSWERS}.get(name)
    if choices is not None:
        good = value in choices
    elif name == "metrics":
        good = isinstance(value, bool)
    elif name in {"dies_on", "fails_on"}:
        good = isinstance(value, str)
    elif name == "workers":
        good = type(value) is int and 0 <= value <= MOST_WORKERS
    else:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        good = is_number and 0 <= value <= 3600  # type: ignore[operator]
    if not good:
        wanted = f": one of {', '.join(choices)}" if choices else ""
        raise MannersError(f"{name} cannot be {value!r}{wanted}")


class Conduct:
    """The manners of the moment; who waits in :meth:`pause` notices a change at once."""

    def __init__(self, manners: Manners) -> None:
        self._now = manners
        self._changed = threading.Condition()
        self._frozen = False

    @property
    def now(self) -> Manners:
        """The present manners."""
        return self._now

    def change(self, changes: object) -> Manners:
        """Replace fields. Raises MannersError and changes nothing."""
        with self._changed:
            self._now = self._now.changed(changes)
            self._changed.notify_all()
            return self._now

    def take_in(self, prompt: str) -> None:
        """Read *prompt*, and die of it where that is the manner: as of a segmentation fault."""
        if self._now.dies_on and self._now.dies_on in prompt:
            os.kill(os.getpid(), signal.SIGKILL)

    def answers(self, prompt: str) -> str:
        """What a request with *prompt* gets now."""
        now = self._now
        return now.fails_with if now.fails_on and now.fails_on in prompt else now.answers

    def freeze(self) -> None:
        """Whoever is in :meth:`pause`, or comes to it, never leaves."""
        with self._changed:
            self._frozen = True
            self._changed.notify_all()

    def pause(self) -> None:
        """Wait for as long as one word takes, and for as long as the engine is wedged."""
        with self._changed:
            before = self._now.answers
            self._changed.wait_for(
                lambda: self._stuck() or self._now.answers != before, self._now.token_delay
            )
            self._changed.wait_for(lambda: not self._stuck())

    def _stuck(self) -> bool:
        return self._frozen or self._now.answers == "wedge"
