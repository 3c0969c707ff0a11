"""What clients are told when it does not work, in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ApiError", "NoModelError", "StartError", "error_body"]

_KINDS = {400: "invalid_request_error", 404: "not_found_error", 405: "invalid_request_error"}


class ApiError(Exception):
    """A request that gets *status* and a *message* instead of an answer.

    *param* is the field that is wrong, *code* a word for programs. *retry_after* are seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's further headers."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return error_body(self.status, self.message, param=self.param, code=self.code)


class StartError(Exception):
    """The model cannot be served as it was asked for; the message says why and what to do."""


class NoModelError(ApiError):
    """A request for another model than the one that is served."""

    def __init__(self, asked: str, served: str) -> None:
        super().__init__(
            404,
            f"The model {asked[:200]!r} does not exist; this server has {served!r}.",
            param="model",
            code="model_not_found",
        )


def error_body(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """An error as OpenAI's API has it."""
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
