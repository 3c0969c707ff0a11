"""The role nginx and nothing else, for tests; ``gateway_names`` are gateways without an address."""

from pyinfra import config, host

import roles.nginx
from farrier.inventory import current_fleet
from farrier.spec import HostSpec

config.SUDO = True

roles.nginx.nginx(
    current_fleet().hosts[host.name],
    [
        HostSpec(name, address=name, groups=("gateway",))
        for name in host.data.get("gateway_names", ())
    ],
)
