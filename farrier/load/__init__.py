"""An honest load on any OpenAI-compatible endpoint: its ledger knows what became of every request.

Every request has a name, in its body's ``user`` and in ``X-Request-ID``, by which an engine's own
account can be compared with the clients'. Nothing is ever asked twice in secret: what a library for
everyday would repeat (openai-python repeats a request whose connection broke) is counted as what it
was. :func:`run` is the load, :class:`Background` the same beside a test.
"""

from farrier.load.background import Background
from farrier.load.endpoint import Endpoint, EndpointError, Key
from farrier.load.judging import LOST, OUTCOMES, Outcome
from farrier.load.ledger import Ledger, Request
from farrier.load.plan import KINDS, Plan, PlanError
from farrier.load.running import run

__all__ = [
    "KINDS",
    "LOST",
    "OUTCOMES",
    "Background",
    "Endpoint",
    "EndpointError",
    "Key",
    "Ledger",
    "Outcome",
    "Plan",
    "PlanError",
    "Request",
    "run",
]
