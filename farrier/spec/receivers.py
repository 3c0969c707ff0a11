"""Who is told of alerts: the receivers of the inventory, and what can be wrong with them.

Secrets stand in files of their own on the operator's machine (mode 600), which the inventory names;
a relative path counts from the directory of config.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from farrier.spec.check_model import LABEL_RULE, Finding, did_you_mean, is_label, shown
from farrier.spec.private import PrivateFileError, read_secret
from farrier.spec.problems import Place

__all__ = [
    "SEVERITIES",
    "Mail",
    "PagerDuty",
    "Receiver",
    "Slack",
    "Webhook",
    "check_durations",
    "check_receivers",
]

SEVERITIES = ("critical", "warning")
"""What alerts are labelled with; each has one."""


class Receiver:
    """One that is told of alerts of the given *severities* (default: of all).

    Nothing is checked here: :func:`check_receivers` names every problem at once. ``place`` is the
    line of the inventory that it was written in.
    """

    FIELDS: ClassVar[tuple[str, ...]] = ()
    SECRETS: ClassVar[Mapping[str, str]] = {}
    """Fields that name a file with a secret, and what that file holds."""

    def __init__(
        self, name: str = "", *, severities: Sequence[str] = SEVERITIES, **said: Any
    ) -> None:
        self.name = name
        self.severities = severities
        self.said = {key: value for key, value in said.items() if key in self.FIELDS}
        self.unknown = tuple(key for key in said if key not in self.FIELDS)
        caller = sys._getframe(1)
        self.place = Place(caller.f_code.co_filename, caller.f_lineno)

    def __repr__(self) -> str:
        # pyinfra logs group data with %r: an address may say more than it should
        return f"{type(self).__name__}({self.name!r})"

    def __getitem__(self, field: str) -> Any:
        """What was said of *field*; None without it."""
        return self.said.get(field)

    def to_json(self) -> dict[str, Any]:
        """Its kind and name as plain values. Used by pyinfra."""
        return {"kind": type(self).__name__, "name": self.name}

    def findings(self) -> Iterator[Finding]:
        """What is wrong with the fields of its kind."""
        yield from ()


class Webhook(Receiver):
    """A server that takes Alertmanager's JSON by POST.

    ``url``, or ``url_file`` where the address itself is the secret; ``token_file`` for one that is
    sent as ``Authorization: Bearer``.
    """

    FIELDS = ("url", "url_file", "token_file")
    SECRETS: ClassVar[Mapping[str, str]] = {
        "url_file": "the address, http://… or https://…",
        "token_file": "the token that is sent as Authorization: Bearer",
    }

    def findings(self) -> Iterator[Finding]:
        """One address, and no secret in the inventory."""
        if (self["url"] is None) == (self["url_file"] is None):
            yield "url", "say either url, or url_file where the address itself is a secret"
        elif self["url"] is not None and (why := _no_url(self["url"])):
            yield "url", why


class Slack(Receiver):
    """A channel of Slack's, by an incoming webhook whose address stands in ``url_file``."""

    FIELDS = ("url_file", "channel")
    SECRETS: ClassVar[Mapping[str, str]] = {
        "url_file": "the incoming webhook, https://hooks.slack.com/services/…"
    }

    def findings(self) -> Iterator[Finding]:
        """The address, and a channel that is one."""
        if self["url_file"] is None:
            yield "url_file", f"missing: a file with {self.SECRETS['url_file']}"
        channel = self["channel"]
        if channel is not None and not _matches(r"[#@][^\s]{1,80}", channel):
            yield "channel", f"must be like '#gpu-alerts', not {shown(channel)}"


class PagerDuty(Receiver):
    """A service of PagerDuty's, by the integration key (Events API v2) in ``key_file``."""

    FIELDS = ("key_file",)
    SECRETS: ClassVar[Mapping[str, str]] = {"key_file": "the integration key of Events API v2"}

    def findings(self) -> Iterator[Finding]:
        """The key."""
        if self["key_file"] is None:
            yield "key_file", f"missing: a file with {self.SECRETS['key_file']}"


class Mail(Receiver):
    """Mail ``to`` somebody, from ``sender``, by ``smarthost`` (``host:port``, with STARTTLS).

    ``user`` and ``password_file`` where the smarthost asks for them; ``plain=True`` for one
    without TLS.
    """

    FIELDS = ("to", "sender", "smarthost", "user", "password_file", "plain")
    SECRETS: ClassVar[Mapping[str, str]] = {"password_file": "the password of that user"}

    def findings(self) -> Iterator[Finding]:
        """Addresses, a smarthost, and both of user and password or none."""
        for field in ("to", "sender"):
            if not _matches(r"[^\s@,<>]+@[^\s@,<>]+", self[field]):
                yield field, f"must be an address such as ops@example.com, not {shown(self[field])}"
        if not _matches(r"[A-Za-z0-9._-]+:[0-9]{1,5}", self["smarthost"]):
            yield "smarthost", f"must be host:port, not {shown(self['smarthost'])}"
        if (self["user"] is None) != (self["password_file"] is None):
            yield "user", "user and password_file go together: say both or none"
        if self["user"] is not None and not _matches(r"\S+", self["user"]):
            yield "user", f"must be the name to log in with, not {shown(self['user'])}"
        if self["plain"] not in {None, True, False}:
            yield "plain", f"must be True or False, not {shown(self['plain'])}"


KINDS = (Webhook, Slack, PagerDuty, Mail)


def check_receivers(receivers: object, root: Path, secrets: dict[str, str]) -> Iterator[Finding]:
    """Every problem of *receivers*, each with its path below ``alertmanager_receivers``.

    What the named files hold is added to *secrets*, by ``NAME.FIELD``. Relative paths count from
    *root*.
    """
    if not isinstance(receivers, list | tuple):
        yield "", f"must be a list: [Webhook(…), Slack(…)], not {shown(receivers)}"
        return
    names: dict[str, int] = {}
    for index, one in enumerate(receivers):
        here = f"[{index}]"
        if not isinstance(one, KINDS):
            kinds = ", ".join(f"{kind.__name__}(…)" for kind in KINDS)
            yield here, f"must be one of {kinds}, not {shown(one)}"
            continue
        for path, message in _check(one, root, secrets):
            yield f"{here}.{path}", message
        if isinstance(one.name, str) and names.setdefault(one.name, index) != index:
            yield f"{here}.name", f"receiver [{names[one.name]}] has the same name {one.name!r}"


def check_durations(data: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with Alertmanager's times in *data*."""
    for name in ("group_wait", "group_interval", "repeat_interval"):
        value = data.get(f"alertmanager_{name}", "1s")
        if not _matches(r"(\d+(ms|s|m|h|d|w))+", value):
            yield (
                f"alertmanager_{name}",
                f"must be a time such as '30s' or '4h', not {shown(value)}",
            )


def _check(one: Receiver, root: Path, secrets: dict[str, str]) -> Iterator[Finding]:
    kind = type(one).__name__
    for name in one.unknown:
        known = (*one.FIELDS, "severities")
        yield name, f"{kind} has no field {name!r}{did_you_mean(name, known)}"
    if not is_label(one.name):
        yield "name", f"{shown(one.name)} is no name: {LABEL_RULE}"
    said = one.severities
    if (
        isinstance(said, str)
        or not isinstance(said, Sequence)
        or not said
        or not set(said) <= set(SEVERITIES)
    ):
        is_list = isinstance(said, list | tuple)
        found = ", ".join(map(shown, said)) or "an empty one" if is_list else shown(said)
        yield "severities", f"must be a list of {' and '.join(SEVERITIES)}, not {found}"
    yield from one.findings()
    for field, holds in one.SECRETS.items():
        if (file := one[field]) is None:
            continue
        if not isinstance(file, str) or not file:
            yield field, f"must be the path of a file on this machine, not {shown(file)}"
            continue
        try:
            secret = read_secret(root / Path(file).expanduser(), holds)
        except (PrivateFileError, RuntimeError) as error:  # RuntimeError: ~ of a user not there
            yield field, str(error)
            continue
        if field == "url_file" and (why := _no_url(secret)):
            yield field, f"{file} has to hold {holds}: {why.partition(', not ')[0]}"
        secrets[f"{one.name}.{field}"] = secret


def _no_url(value: object) -> str:
    """Why *value* is no address of a web server that may stand in plain text."""
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        good = parts.scheme in {"http", "https"} and bool(parts.hostname)
        port_is_good = parts.port != 0
    except ValueError:
        good = port_is_good = False
    if not good or not port_is_good or re.search(r"\s", str(value)):
        return f"must be an address such as https://alerts.example.com/hook, not {shown(value)}"
    if parts.password is not None:
        return "a password in an address is a secret: put the address into a file, url_file"
    return ""


def _matches(pattern: str, value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None
