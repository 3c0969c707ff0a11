"""The long tests use the same fleet as the tests of roles."""

from tests.roles.conftest import converge, fleet

__all__ = ["converge", "fleet"]
