"""One role alone, as a deploy: ``--data role=NAME``, and ``--data removed=true`` takes it away."""

from importlib import import_module

from pyinfra import config, host

config.SUDO = host.data.get("ssh_user") != "root"

name = host.data.get("role")
role = import_module(f"roles.{name}")
if host.data.get("removed"):
    role.remove()
else:
    getattr(role, name)(**host.data.get("arguments", {}))
