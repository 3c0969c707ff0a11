"""One role alone, as a deploy: ``--data role=NAME``, and ``--data removed=true`` takes it away.

A role that takes the host's spec is given it.
"""

import inspect
from importlib import import_module

from pyinfra import config, host

from farrier.inventory import current_fleet

config.SUDO = host.data.get("ssh_user") != "root"

name = host.data.get("role")
role = import_module(f"roles.{name}")
if host.data.get("removed"):
    role.remove()
else:
    converge = getattr(role, name)
    takes = inspect.signature(inspect.unwrap(converge)).parameters
    spec = {"spec": current_fleet().hosts[host.name]} if "spec" in takes else {}
    converge(**spec, **host.data.get("arguments", {}))
