"""The long tests use the same fleets as the tests of roles and of the gateway."""

from tests.fleet.conftest import fleet_lab, site
from tests.roles.conftest import converge, fleet

__all__ = ["converge", "fleet", "fleet_lab", "site"]
