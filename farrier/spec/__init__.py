"""The one place where a host's and a model's fields are defined and checked.

Pure: nothing here imports pyinfra or talks to a host, so that every problem of an inventory is
known before the first connection.
"""

from farrier.spec.access import OPEN_ACCESS
from farrier.spec.agent import AgentSettings
from farrier.spec.fleet import Fleet, check, read_fleet
from farrier.spec.host import HostSpec, read_host
from farrier.spec.images import ArchiveImage, RegistryImage
from farrier.spec.keys import ApiKey, KeysError, read_keys
from farrier.spec.model import Argument, HubSource, Model, OllamaSource, PathSource, parse_source
from farrier.spec.problems import Place, Problem, SpecError, report
from farrier.spec.receivers import Mail, PagerDuty, Receiver, Slack, Webhook
from farrier.spec.spanning import Rank

__all__ = [
    "OPEN_ACCESS",
    "AgentSettings",
    "ApiKey",
    "ArchiveImage",
    "Argument",
    "Fleet",
    "HostSpec",
    "HubSource",
    "KeysError",
    "Mail",
    "Model",
    "OllamaSource",
    "PagerDuty",
    "PathSource",
    "Place",
    "Problem",
    "Rank",
    "Receiver",
    "RegistryImage",
    "Slack",
    "SpecError",
    "Webhook",
    "check",
    "parse_source",
    "read_fleet",
    "read_host",
    "read_keys",
    "report",
]
