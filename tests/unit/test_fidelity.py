"""What engines answer: the page that is made of it, and the questions, put to a stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest
from farrier_agent.engines import ENGINES

from farrier import fidelity_page
from farrier.fidelity_page import QUESTIONS, WAYS, Asked, page, read, record
from farrier.spec import Model
from tests.agent.standin import engine
from tests.fidelity import answers
from tests.fronts import fronts, versions

ASKED = Asked(
    version="1.2",
    real=False,
    date="2026-11-22",
    proxies="nginx 1.22.1, haproxy 2.6.12",
    answers={
        "chat": dict.fromkeys(WAYS, "yes"),
        "unknown_model": {"engine": "404 `a`", "nginx": "404 `a`", "gateway": "404 `b`"},
        "wrong_key": {"gateway": "401 `c`"},
    },
)


def test_a_cell_has_one_answer_where_all_ways_were_alike() -> None:
    text = page({"custom": ASKED})
    assert "| `custom` | 1.2 | a stand-in | 2026-11-22 | nginx 1.22.1, haproxy 2.6.12 |" in text
    assert "| `vllm` |  | not asked yet |  |  |" in text
    (first, second) = [line for line in text.splitlines() if line.startswith("| `custom` |")][1:]
    assert "| yes |" in first
    assert "engine: 404 `a`; nginx: 404 `a`; gateway: 404 `b`" in second
    assert "| gateway: 401 `c` |" in second


def test_what_is_recorded_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity_page, "RECORDS", tmp_path / "fidelity.json")
    monkeypatch.setattr(fidelity_page, "PAGE", tmp_path / "fidelity.md")
    assert read() == {}
    record("vllm", ASKED)
    record("custom", ASKED)
    assert list(read()) == ["custom", "vllm"]
    assert (tmp_path / "fidelity.md").read_text(encoding="utf-8") == page()


def test_a_stand_in_is_asked_by_every_way(tmp_path: Path) -> None:
    """Through the real nginx and the real HAProxy; what a stand-in says is of no interest."""
    with engine("--token-delay=0.005") as (standin, _):
        model = Model("tiny", engine="custom", port=standin.port, command=["/bin/serve", "{port}"])
        with fronts(tmp_path, model) as ways:
            found = answers(ways, "tiny", standin.port, ENGINES["vllm"])
    assert found.keys() == QUESTIONS.keys()
    assert set(found["chat"]) == set(WAYS)
    for question in ("chat", "stream", "completions", "embeddings", "too_long"):
        assert len(set(found[question].values())) == 1, (question, found[question])
    assert found["models"]["gateway"] == "yes"
    assert found["wrong_key"] == {"gateway": "401 `invalid_api_key`"}
    assert found["unknown_model"]["gateway"] == "404 `model_not_found`"
    assert found["not_json"]["gateway"] == "400 `model_missing`"
    assert {told[-2:] for told in found["leaves"].values()} == {" s"}
    assert "nginx 1." in versions()
