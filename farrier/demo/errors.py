"""What goes wrong in the demo."""

from __future__ import annotations

__all__ = ["DemoError"]


class DemoError(Exception):
    """A phase of the demo failed: *why*, and the *next* command to type."""

    def __init__(self, why: str, next: str) -> None:  # noqa: A002 - the reader's word
        super().__init__(why)
        self.why = why
        self.next = next
