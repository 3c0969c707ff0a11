"""What happens to a request before its page is looked for: who asks, and may they."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from farrier_agent.web.inforce import InForce, Rules
from farrier_agent.web.messages import Answer, Request, json_answer
from farrier_agent.web.pages import Pages
from farrier_agent.web.users import Credentials, Tries, Users, credentials

__all__ = ["Later", "Reception"]

Later = Coroutine[Any, Any, Answer]
"""An answer that takes a moment."""

REFUSAL = json_answer(401, {"error": "user and password are needed"}, ("www-authenticate", "Basic"))
TOO_OFTEN = json_answer(429, {"error": "too many requests"}, ("retry-after", "1"))
TOO_MANY_TRIES = json_answer(429, {"error": "too many passwords were tried"}, ("retry-after", "2"))
UNUSABLE = json_answer(
    503,
    {
        "error": "the agent's web configuration cannot be used, so nobody is answered;"
        " next, on this host: farrier-agent check-config /etc/farrier/agent.toml"
    },
)


class Reception:
    """Answers with *pages* who may have them by the configuration *in_force*."""

    def __init__(self, pages: Pages, in_force: InForce) -> None:
        self._pages = pages
        self._in_force = in_force
        self._tries = Tries()

    def rules(self) -> Rules | None:
        """What holds now; None: nobody is answered."""
        return self._in_force.rules()

    def receive(self, request: Request, rules: Rules | None) -> Answer | Later:
        """The answer to *request*, at once or, where a password has to be checked, later."""
        if rules is None:
            return UNUSABLE
        if rules.limit is not None and not rules.limit.take():
            return _with(TOO_OFTEN, rules)
        who = credentials(request.headers.get("authorization"))
        if rules.users is None or (who and rules.users.remembers(who)):
            return _with(self._pages.answer(request), rules)
        if who is None:
            return _with(REFUSAL, rules)
        if not self._tries.allowed(request.peer):
            return _with(TOO_MANY_TRIES, rules)
        return self._checked(request, who, rules.users, rules)

    def close(self) -> None:
        """Check no more passwords."""
        self._tries.close()

    async def _checked(
        self, request: Request, who: Credentials, users: Users, rules: Rules
    ) -> Answer:
        right = await users.verify(who, self._tries)
        return _with(self._pages.answer(request) if right else REFUSAL, rules)


def _with(answer: Answer, rules: Rules) -> Answer:
    if not rules.headers:
        return answer
    return answer._replace(headers=(*answer.headers, *rules.headers))
