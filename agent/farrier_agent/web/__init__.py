"""The agent's HTTP endpoint: who may ask for what, and the pages that answer.

``listening`` has the socket, ``endpoint`` accepts, ``connection`` and ``crowd`` bear what clients
do; ``inforce`` keeps the web configuration that ``configuration`` describes, ``reception`` asks who
comes (``tls``, ``users``); ``pages`` answers, ``exposition`` with ``/metrics`` in the form that
``negotiation`` finds.
"""

from farrier_agent.web.configuration import WebConfigError
from farrier_agent.web.endpoint import Endpoint
from farrier_agent.web.inforce import InForce, check
from farrier_agent.web.listening import ListenError, bind
from farrier_agent.web.pages import Pages

__all__ = ["Endpoint", "InForce", "ListenError", "Pages", "WebConfigError", "bind", "check"]
