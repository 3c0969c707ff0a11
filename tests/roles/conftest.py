"""The fleet that the tests of roles share: converged once, by the first test that needs it."""

from functools import partial

import pytest

from farrier.lab import Lab
from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, until


@pytest.fixture(scope="session")
def converge(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Converge:
    """Calls the real ``pyinfra`` on the lab's hosts; the inventory serves tiny everywhere."""
    return Converge(lab, tmp_path_factory.mktemp("converge"))


@pytest.fixture(scope="session")
def fleet(lab: Lab, converge: Converge) -> Fleet:
    """The lab's hosts after the first converge: see :class:`Fleet` for who serves what."""
    it = Fleet(lab, converge)
    it.prepare()
    run = converge(timeout=900)
    if run.returncode:
        pytest.fail(f"the first converge failed:\n{run.last_words(60)}", pytrace=False)
    print(f"first converge: {run.seconds:.0f} s")
    pending = run.last_section("Restart pending")
    for host in it.gpu_hosts:
        # A lab that was kept from an earlier session runs what that session left.
        if f"{host}: replica tiny runs an older" in pending:
            it.root(host, "systemctl restart engine-tiny")
            until(partial(it.gate, host), 180, f"{host} serves after its restart")
    return it
