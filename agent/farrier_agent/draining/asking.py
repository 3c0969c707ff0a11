"""Asks the agent to drain a replica for systemd, in a thread, while somebody else watches the time.

The answer is worth nothing by itself: what counts is the record, which the agent writes as it goes.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Asking"]


class Asking:
    """One request to the agent at *path*, from :meth:`start` to its end.

    *fields* are those of :class:`farrier_agent.control.protocol.Stopping`.

    ``over`` is set when the agent said its last word, cannot be asked, or is lost; ``why`` then
    says what it came to.
    """

    def __init__(self, path: Path, fields: Mapping[str, Any], within: float) -> None:
        self.over = threading.Event()
        self.why = ""
        self._path = path
        self._fields = fields
        self._within = within

    def start(self) -> None:
        """Ask, in the background. The thread ends with the process, whatever it waits for."""
        threading.Thread(target=self._run, name="ask the agent", daemon=True).start()

    def _run(self) -> None:
        try:
            self.why = self._ask()
        except Exception as error:  # whatever it is, the stop goes on
            self.why = str(error) or type(error).__name__
        finally:
            self.over.set()

    def _ask(self) -> str:
        # here, not above: an agent that is half upgraded must not keep an engine from draining
        from farrier_agent.control import client, protocol  # noqa: PLC0415

        request = protocol.Stopping(**self._fields)
        final = client.ask(request, path=self._path, answer_within=self._within)
        if isinstance(final, protocol.Failed):
            return final.error
        return "the agent says that it is done"
