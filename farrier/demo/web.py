"""HTTP to the lab's hosts: never through a proxy, always with a timeout."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from typing import cast

__all__ = ["AnswerError", "fetch", "open_url"]

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The lab's network exists on this machine only; a site's proxy cannot reach it."""


class AnswerError(Exception):
    """No answer, or one that is no 200; the text says which. *status* is None without an answer."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


def open_url(
    url: str,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 5.0,
) -> HTTPResponse:
    """The open answer of *url*; *timeout* in seconds holds for every single read of it too.

    Raises :class:`AnswerError`.
    """
    request = urllib.request.Request(url, data=data, headers=headers or {})  # noqa: S310
    try:
        return cast("HTTPResponse", _DIRECT.open(request, timeout=timeout))
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode(errors="replace").strip()
        raise AnswerError(f"{url}: HTTP {error.code}: {said}", error.code) from error
    except (OSError, HTTPException) as error:
        raise AnswerError(f"{url}: {getattr(error, 'reason', None) or error!r}") from error


def fetch(url: str, timeout: float = 5.0) -> bytes:
    """The body of *url*. Raises :class:`AnswerError`."""
    with open_url(url, timeout=timeout) as answer:
        try:
            return answer.read()
        except (OSError, HTTPException) as error:
            raise AnswerError(f"{url}: {error!r}") from error
