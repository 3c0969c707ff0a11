"""docs/fidelity.md: what engines answer to OpenAI's client, made from what was recorded.

``tests/full/test_fidelity.py`` asks them and writes docs/fidelity.json; ``python -m
farrier.fidelity_page`` makes the page of it. With ``--check`` nothing is written, and the exit code
is 1 unless the page is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from farrier.generated import row, writing
from farrier.spec.engines import ENGINES

__all__ = ["PAGE", "QUESTIONS", "RECORDS", "WAYS", "Asked", "page", "read", "record"]

PAGE = Path(__file__).parents[1] / "docs" / "fidelity.md"
RECORDS = PAGE.with_suffix(".json")

WAYS = ("engine", "nginx", "gateway")
"""Where clients ask: the engine's own port, its host's nginx, a gateway before that."""

_ANSWERS: Mapping[str, str] = {
    "models": "`/v1/models`",
    "chat": "chat",
    "stream": "chat, streamed with usage",
    "completions": "completions",
    "stop": "`stop`",
    "n": "`n=2`",
    "logprobs": "`logprobs`",
    "tools": "`tools`",
    "response_format": "`response_format`",
    "embeddings": "embeddings",
}
_ENDS: Mapping[str, str] = {
    "unknown_model": "unknown model",
    "not_json": "body is no JSON",
    "wrong_type": "`temperature` is a word",
    "too_long": "longer than the context",
    "wrong_key": "wrong key",
    "leaves": "client leaves a stream: it stops within",
}
QUESTIONS: Mapping[str, str] = {**_ANSWERS, **_ENDS}
"""What is asked, with the heading of its column."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one engine answered.

    ``real``: the program itself, not a stand-in. ``date`` is the day (ISO 8601), ``proxies`` are
    the versions of nginx and HAProxy. ``answers`` maps a question of :data:`QUESTIONS` and a way of
    :data:`WAYS` to what came of it.
    """

    version: str
    real: bool
    date: str
    proxies: str
    answers: dict[str, dict[str, str]]


_RECORDS = msgspec.json.Decoder(dict[str, Asked])

_HEAD = """\
<!-- Written by `make docs` from docs/fidelity.json, which tests/full/test_fidelity.py records. -->
# What engines answer

OpenAI's own Python client asked each engine three times: at its own port, through a host's nginx
and through a gateway, both as the roles configure them. A cell has one answer where all three were
alike, which is what they are meant to be: nginx and gateway pass on what engines say. A gateway
answers `/v1/models`, an unknown model, a body that is no JSON and a wrong key itself, before any
engine is asked; who is let in by a host's own nginx is shown by `tests/nginx/test_keys.py`.

*yes* is an answer with all that OpenAI's has: role, text, reason of its end, usage, and of a stream
the same text as in one piece. *ignored* is an answer as if the field were not there. A number is
the status of a refusal, with its `code` or `type`. OpenAI's refusals are an `error` object with
`message`, `type`, `param` and `code`: what one lacks is named, *other shape* is one without that
object.

Engine, nginx and HAProxy were processes of one machine, and the model was the lab's tiny one, whose
words mean nothing: what is shown is the shape of answers, not their sense.

"""


def read() -> dict[str, Asked]:
    """What was recorded, by engine; nothing where nothing was."""
    return _RECORDS.decode(RECORDS.read_bytes()) if RECORDS.exists() else {}


def record(engine: str, asked: Asked) -> None:
    """Keep *asked* in place of what was recorded of *engine*, and write the page anew."""
    records = dict(sorted((read() | {engine: asked}).items()))
    text = msgspec.json.format(msgspec.json.encode(records), indent=1)
    RECORDS.write_bytes(text + b"\n")
    PAGE.write_text(page(), encoding="utf-8")


def page(records: Mapping[str, Asked] | None = None) -> str:
    """The whole page."""
    records = read() if records is None else records
    parts = [_HEAD, "## Who was asked\n\n", _asked(records)]
    for title, questions in (("Answers", _ANSWERS), ("Refusals and leaving", _ENDS)):
        parts += [f"\n## {title}\n\n", _table(questions, records)]
    return "".join(parts)


def _asked(records: Mapping[str, Asked]) -> str:
    lines = [row(["engine", "version", "", "asked on", "through"]), row(["---"] * 5)]
    for engine in ENGINES:
        one = records.get(engine)
        if one is None:
            lines.append(row([f"`{engine}`", "", "not asked yet", "", ""]))
            continue
        kind = "the real program" if one.real else "a stand-in"
        lines.append(row([f"`{engine}`", one.version, kind, one.date, one.proxies]))
    return "\n".join([*lines, ""])


def _table(questions: Mapping[str, str], records: Mapping[str, Asked]) -> str:
    lines = [row(["engine", *questions.values()]), row(["---"] * (len(questions) + 1))]
    lines += [
        row([f"`{engine}`", *(_cell(records[engine].answers.get(one, {})) for one in questions)])
        for engine in ENGINES
        if engine in records
    ]
    return "\n".join([*lines, ""])


def _cell(answers: Mapping[str, str]) -> str:
    """One answer for all ways, or each way's own."""
    if len(set(answers.values())) == 1 and len(answers) == len(WAYS):
        return next(iter(answers.values()))
    return "; ".join(f"{way}: {answers[way]}" for way in WAYS if way in answers)


main = writing(PAGE, page, "docs/fidelity.json")

if __name__ == "__main__":
    main()
