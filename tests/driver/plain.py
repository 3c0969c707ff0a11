"""The role alone, as deploys/llm.py calls it: a deploy for tests."""

from pyinfra import config, host

import roles.nvidia_driver
from farrier.inventory import current_fleet

config.SUDO = True

roles.nvidia_driver.nvidia_driver(current_fleet().hosts[host.name])
