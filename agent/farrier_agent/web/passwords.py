"""bcrypt, from the C library's libcrypt: every Debian and Ubuntu has it for its own logins."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable
from typing import Any

from farrier_agent.web.configuration import WebConfigError

__all__ = ["check", "matches"]

LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2")
STATE = 32768
"""Bytes of crypt(3)'s ``struct crypt_data``."""
_KNOWN = b"$2b$04$TnwZ8pOApkdahk8clAw0Y.Wtkfy88OUTSeirVYY4vvMG33vasrVZ6"


@functools.cache
def _crypt() -> Callable[[bytes, bytes, Any], bytes | None]:
    """crypt_r(3). It lets other threads run meanwhile. Raises WebConfigError."""
    import ctypes  # noqa: PLC0415 - not every host has users here

    for name in LIBRARIES:
        try:
            function = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_char_p
        function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        return function
    raise WebConfigError(
        "$.basic_auth_users: libcrypt.so.1 cannot be loaded, which checks passwords;"
        " next: apt-get install libcrypt1"
    )


def check() -> None:
    """Raises :class:`WebConfigError` where this host's libcrypt knows no bcrypt."""
    if not matches(b"farrier", _KNOWN):
        raise WebConfigError("$.basic_auth_users: this host's libcrypt knows no bcrypt")


def matches(password: bytes, hashed: bytes) -> bool:
    """Whether *hashed* was made from *password*. Takes as long as the hash's cost says."""
    import ctypes  # noqa: PLC0415 - see above

    if b"\0" in password:
        return False  # C would see the part before it only
    found = _crypt()(password, hashed, ctypes.create_string_buffer(STATE))
    return found is not None and hmac.compare_digest(found, hashed)
