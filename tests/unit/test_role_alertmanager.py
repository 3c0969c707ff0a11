"""Alertmanager's configuration, read by the real amtool."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from farrier.spec import HostSpec, Mail, PagerDuty, Slack, Webhook
from roles.alertmanager import DEFAULTS
from roles.alertmanager.configuration import SECRETS, config_text, peers, secret_files
from roles.prometheus.rules import rule_texts
from tests.tools import tool
from tests.unit.monitoring import ALERTS

HUSH = "https://hooks.example.com/hush-hush"
RECEIVERS = (
    Webhook("hook", url="https://alerts.example.com/a?b=1&c='<x>'", token_file="t"),
    Webhook("secret-hook", url_file="u"),
    Slack("team", url_file="u", channel="#gpu", severities=["warning"]),
    PagerDuty("oncall", key_file="k", severities=["critical"]),
    Mail("mail", to="o@example.com", sender="f@example.com", smarthost="mx:25", plain=True),
    Mail(
        "mail-2",
        to="o@example.com",
        sender="f@example.com",
        smarthost="mx:587",
        user="u",
        password_file="p",
    ),
)


def spec(*receivers: Any, name: str = "mon01", address: str = "192.0.2.1") -> HostSpec:
    secrets = {f"{one.name}.{field}": HUSH for one in receivers for field in one.SECRETS}
    return HostSpec(
        name=name,
        groups=("monitor",),
        address=address,
        receivers=receivers,
        receiver_secrets=secrets,
    )


def written(directory: Path, *receivers: Any) -> Path:
    path = directory / "alertmanager.yml"
    path.write_text(config_text(spec(*receivers), DEFAULTS.data()), encoding="utf-8")
    return path


def amtool(*arguments: str) -> str:
    done = subprocess.run([tool("amtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("receivers", [(), RECEIVERS, *((one,) for one in RECEIVERS)], ids=repr)
def test_amtool_accepts_it(tmp_path: Path, receivers: tuple[Any, ...]) -> None:
    said = amtool("check-config", str(written(tmp_path, *receivers)))
    assert f"{len(receivers) + 1} receivers" in said


@pytest.mark.parametrize(
    ("severity", "told"),
    [
        ("critical", ["hook", "secret-hook", "oncall", "mail", "mail-2"]),
        ("warning", ["hook", "secret-hook", "team", "mail", "mail-2"]),
    ],
)
def test_receivers_are_told_of_their_severities(
    tmp_path: Path, severity: str, told: list[str]
) -> None:
    path = written(tmp_path, *RECEIVERS)
    said = amtool("config", "routes", "test", f"--config.file={path}", f"severity={severity}")
    assert said.strip().split(",") == told


def test_without_receivers_nobody_is_told(tmp_path: Path) -> None:
    path = written(tmp_path)
    said = amtool("config", "routes", "test", f"--config.file={path}", "severity=critical")
    assert said.strip() == "nobody"


def test_secrets_lie_in_files_of_their_own_where_debians_alertmanager_reads_them() -> None:
    it = spec(*RECEIVERS)
    assert set(secret_files(it)) == {
        f"{SECRETS}/{name}"
        for name in ("hook.token_file", "team.url_file", "oncall.key_file", "mail-2.password_file")
    }
    text = config_text(it, DEFAULTS.data())
    # Debian 12's knows no url_file of a webhook
    assert text.count(HUSH) == 1
    config = yaml.safe_load(text)
    by_name = {one["name"]: one for one in config["receivers"]}
    assert by_name["secret-hook"]["webhook_configs"][0]["url"] == HUSH
    hook = by_name["hook"]["webhook_configs"][0]
    assert hook["url"] == "https://alerts.example.com/a?b=1&c='<x>'"
    assert hook["http_config"]["authorization"]["credentials_file"] == f"{SECRETS}/hook.token_file"


def test_every_inhibition_names_alerts_and_labels_that_there_are() -> None:
    config = yaml.safe_load(config_text(spec(), DEFAULTS.data()))
    labels = {"scope", "severity", "host", "uuid", "replica", "collector", "alertname"}
    for rule in config["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            label, _, values = matcher.replace("!=", "=").replace("=~", "=").partition("=")
            assert label in labels
            if label == "alertname":
                assert set(values.strip('"').split("|")) <= set(ALERTS)
        assert set(rule["equal"]) <= labels


def test_alerts_are_grouped_by_what_people_look_at() -> None:
    config = yaml.safe_load(config_text(spec(), DEFAULTS.data()))
    assert config["route"]["group_by"] == ["alertname", "host", "model"]
    assert rule_texts("x")  # the labels are those of the rules: tests/unit/test_alert_rules.py


def test_several_monitors_are_peers() -> None:
    one = spec(name="mon01", address="192.0.2.1")
    two = spec(name="mon02", address="2001:db8::2")
    assert peers(one, [one]) == []
    assert peers(one, [one, two]) == ["[2001:db8::2]:9094"]
    assert peers(two, [one, two]) == ["192.0.2.1:9094"]
