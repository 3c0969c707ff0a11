"""The pyinfra operations that every role is made of: files, packages, units, environments.

Each operation reads what it needs with **one** command on the host (a converge is as slow as its
round trips), compares, and yields only what differs. None of them remembers anything between runs:
what still has to be done is read from the host, so that a run that was killed half-way is repaired
by the next one.
"""

from farrier.converge.commands import Explained, Refuse
from farrier.converge.packages import packages
from farrier.converge.paths import Absent, Directory, Link, Text, tree
from farrier.converge.units import Unit, drop_in, units

__all__ = [
    "Absent",
    "Directory",
    "Explained",
    "Link",
    "Refuse",
    "Text",
    "Unit",
    "drop_in",
    "packages",
    "tree",
    "units",
]
