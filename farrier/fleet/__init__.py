"""The operator's way to the fleet's hosts: who they are, and SSH that trusts known keys only.

Reading the inventory is pyinfra's, in a process of its own (:mod:`.reading`); speaking with hosts
is fabric's, here (:mod:`.shell`), one host after the other or many at once (:mod:`.asking`).
"""

from farrier.fleet.answers import AgentReply
from farrier.fleet.asking import Answered, ask_all
from farrier.fleet.errors import (
    HostKeyError,
    InventoryError,
    LostError,
    NoAgentError,
    NoAnswerError,
    ShellError,
    SudoError,
    UnreachableError,
)
from farrier.fleet.reading import read_fleet_targets
from farrier.fleet.shell import Done, Shell
from farrier.fleet.target import FleetTargets, Login, ReplicaOf, Target

__all__ = [
    "AgentReply",
    "Answered",
    "Done",
    "FleetTargets",
    "HostKeyError",
    "InventoryError",
    "Login",
    "LostError",
    "NoAgentError",
    "NoAnswerError",
    "ReplicaOf",
    "Shell",
    "ShellError",
    "SudoError",
    "Target",
    "UnreachableError",
    "ask_all",
    "read_fleet_targets",
]
