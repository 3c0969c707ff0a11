"""Brings to CUDA hosts the NVIDIA driver that the inventory names, whichever they have.

    pyinfra --dry inventory deploys/driver.py --limit gpu03     (the plan in words)
    pyinfra inventory deploys/driver.py --limit gpu03

deploys/llm.py installs a driver only where there is none. This one exchanges it: another version,
branch, flavour or source, forth and back. A host is refused while its engines run; nothing is
rebooted, and what the next boot brings is said in the run's last lines.
"""

from pyinfra import config, host

import roles.nvidia_driver
from farrier.converge.preflight import preflight
from farrier.inventory import current_fleet

config.SUDO = host.data.get("ssh_user") != "root"

spec = current_fleet().hosts[host.name]

preflight(spec, "driver", name="Preflight")
roles.nvidia_driver.change(spec)
