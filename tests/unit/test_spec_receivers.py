"""Receivers of alerts, and Grafana's password, as the inventory says them: checked, with places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farrier.spec import HostSpec, Mail, PagerDuty, Problem, Receiver, Slack, Webhook, read_host
from farrier.spec.problems import Place

MAIL = {"to": "ops@example.com", "sender": "f@example.com", "smarthost": "mx.example.com:587"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with a good secret in ``secret``, an address in ``url``, and bad ones beside."""
    for name, content, mode in (
        ("secret", "0123456789abcdef0123456789abcdef\n", 0o600),
        ("url", "https://hooks.example.com/T0/B0/hush-hush\n", 0o600),
        ("open", "0123456789abcdef\n", 0o644),
        ("empty", "\n", 0o600),
        ("lines", "hush-hush\nhush-hush\n", 0o600),
        ("short", "hush-hush\n", 0o600),
    ):
        path = tmp_path / name
        path.write_text(content)
        path.chmod(mode)
    return tmp_path


Read = Callable[..., tuple[HostSpec, list[Problem]]]


@pytest.fixture
def read(root: Path) -> Read:
    def it(*receivers: Any, groups: tuple[str, ...] = ("monitor",), **more: Any) -> Any:
        data = {"ssh_hostname": "192.0.2.1", **more}
        if receivers:
            data["alertmanager_receivers"] = list(receivers)
        return read_host("mon01", groups, data, lambda _: Place("f.py", 7), root=root)

    return it


def test_good_receivers_come_with_their_secrets(read: Read, root: Path) -> None:
    receivers = [
        Webhook("hook", url="https://alerts.example.com/farrier"),
        Webhook("secret-hook", url_file="url", token_file=str(root / "secret")),
        Slack("team", url_file="url", channel="#gpu", severities=["warning"]),
        PagerDuty("oncall", key_file="secret", severities=["critical"]),
        Mail("mail", **MAIL),
        Mail("mail-2", **MAIL, user="u", password_file="secret", plain=True),
    ]
    spec, problems = read(*receivers)
    assert problems == []
    assert spec.receivers == tuple(receivers)
    url, secret = "https://hooks.example.com/T0/B0/hush-hush", "0123456789abcdef" * 2
    assert spec.receiver_secrets == {
        "secret-hook.url_file": url,
        "secret-hook.token_file": secret,
        "team.url_file": url,
        "oncall.key_file": secret,
        "mail-2.password_file": secret,
    }


def test_none_is_fine(read: Read) -> None:
    spec, problems = read()
    assert (problems, spec.receivers) == ([], ())


@pytest.mark.parametrize(
    ("receiver", "field", "told"),
    [
        (Webhook("Hook", url="http://x"), "name", "lower-case"),
        (Webhook("hook"), "url", "either url, or url_file"),
        (Webhook("hook", url="http://x", url_file="url"), "url", "either url, or url_file"),
        (Webhook("hook", url="alerts.example.com"), "url", "must be an address such as"),
        (Webhook("hook", url="http://x:99999/"), "url", "must be an address such as"),
        (Webhook("hook", url=5), "url", "must be an address such as"),
        (Webhook("hook", url="https://u:hush-hush@x/"), "url", "a password in an address"),
        (Webhook("hook", ulr="http://x", url="http://x"), "ulr", "did you mean 'url'?"),
        (Webhook("hook", url="http://x", severities=[]), "severities", "critical and warning"),
        (Webhook("hook", url="http://x", severities=["fatal"]), "severities", "not 'fatal'"),
        (Webhook("hook", url="http://x", severities="critical"), "severities", "must be a list"),
        (Webhook("hook", url_file="secret"), "url_file", "http://… or https://…"),
        (Slack("team"), "url_file", "missing: a file with"),
        (Slack("team", url_file="url", channel="gpu"), "channel", "'#gpu-alerts'"),
        (Slack("team", url_file="gone"), "url_file", "No such file"),
        (Slack("team", url_file=7), "url_file", "must be the path of a file"),
        (PagerDuty("oncall"), "key_file", "missing: a file with"),
        (PagerDuty("oncall", key_file="open"), "key_file", "chmod 600"),
        (PagerDuty("oncall", key_file="empty"), "key_file", "one line"),
        (PagerDuty("oncall", key_file="lines"), "key_file", "one line"),
        (PagerDuty("oncall", key_file="."), "key_file", "not a regular file"),
        (Mail("mail", **{**MAIL, "to": "ops"}), "to", "ops@example.com"),
        (Mail("mail", **{**MAIL, "smarthost": "mx"}), "smarthost", "host:port"),
        (Mail("mail", **MAIL, user="u"), "user", "go together"),
        (Mail("mail", **MAIL, plain="no"), "plain", "True or False"),
    ],
)
def test_a_mistake_is_named(read: Read, receiver: Receiver, field: str, told: str) -> None:
    _, problems = read(receiver)
    (problem,) = problems
    assert problem.field == f"alertmanager_receivers[0].{field}"
    assert told in problem.message
    assert "hush-hush" not in problem.message
    # this file, in which the receiver was written
    assert problem.file == __file__
    assert problem.line > 0


def test_the_line_is_that_of_the_field(read: Read) -> None:
    receiver = Mail(
        "mail",
        to="ops@example.com",
        sender="f@example.com",
        smarthost="mx",  # this line
    )
    _, (problem,) = read(receiver)
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert lines[problem.line - 1].endswith("# this line")


def test_several_mistakes_are_told_at_once(read: Read) -> None:
    _, problems = read(Slack("a"), "b", Slack("a", url_file="url"), PagerDuty("c"))
    assert [problem.field for problem in problems] == [
        "alertmanager_receivers[0].url_file",
        "alertmanager_receivers[1]",
        "alertmanager_receivers[2].name",
        "alertmanager_receivers[3].key_file",
    ]


def test_receivers_belong_to_monitors(read: Read) -> None:
    _, (problem,) = read(Slack("team", url_file="url"), groups=("gpu",))
    assert (problem.field, problem.line) == ("alertmanager_receivers", 7)
    assert "group monitor" in problem.message


@pytest.mark.parametrize("value", ["hook", {"hook": "x"}, Slack("team", url_file="url")])
def test_what_is_no_list_is_refused(root: Path, value: object) -> None:
    data = {"ssh_hostname": "192.0.2.1", "alertmanager_receivers": value}
    _, (problem,) = read_host("mon01", ["monitor"], data, root=root)
    assert problem.field == "alertmanager_receivers"
    assert "must be a list" in problem.message


@pytest.mark.parametrize("value", ["soon", "30", 30, None, "-1s", "1s; rm"])
def test_times_are_alertmanagers(read: Read, value: object) -> None:
    _, (problem,) = read(alertmanager_group_wait=value)
    assert problem.field == "alertmanager_group_wait"
    assert "'30s'" in problem.message
    assert read(alertmanager_group_wait="1m30s")[1] == []


def test_a_receiver_shows_its_name_alone() -> None:
    one = Webhook("hook", url="https://alerts.example.com/T0/hush-hush")
    assert (repr(one), one.to_json()) == ("Webhook('hook')", {"kind": "Webhook", "name": "hook"})


def test_grafanas_password_is_read(read: Read) -> None:
    spec, problems = read(grafana=True, grafana_admin_password_file="secret")
    assert problems == []
    assert spec.grafana_secrets == {"password": "0123456789abcdef" * 2}
    assert "0123456789abcdef" not in repr(spec)


@pytest.mark.parametrize(
    ("data", "field", "told"),
    [
        ({"grafana": True}, "grafana", "needs grafana_admin_password_file"),
        ({"grafana": "yes"}, "grafana", "True or False"),
        ({"grafana_admin_password_file": "short"}, "grafana_admin_password_file", "shorter than"),
        ({"grafana_admin_password_file": "open"}, "grafana_admin_password_file", "chmod 600"),
        ({"grafana_admin_password_file": 7}, "grafana_admin_password_file", "must be the path"),
    ],
)
def test_grafanas_mistakes_are_named(
    read: Read, data: dict[str, Any], field: str, told: str
) -> None:
    _, (problem,) = read(**data)
    assert problem.field == field
    assert told in problem.message
    assert "hush-hush" not in problem.message
