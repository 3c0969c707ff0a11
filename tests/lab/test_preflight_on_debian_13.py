"""Keys of NVIDIA's repository, as Debian 13 takes them: its apt verifies with sqv.

The keys are stand-ins, made by the real gpg; what is seen of them, the real host says.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from farrier.lab import Lab
from tests.fakes.nvidia_repo.signing import Signer
from tests.lab.preflight_site import Site

HOST = "gpu03"
KEYRING = "/etc/apt/keyrings/farrier-nvidia.gpg"
SOURCE = "/etc/apt/sources.list.d/nvidia-under-test.list"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    it = Signer(tmp_path_factory.mktemp("gpg") / "g")
    yield it
    it.stop()


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[Site]:
    it = Site(lab, tmp_path, {"nvidia_driver_source": "nvidia"}, host=HOST)
    yield it
    it.root(f"rm -f {KEYRING} {SOURCE}")


@pytest.mark.parametrize(
    ("kind", "codes"), [("good", set()), ("expired", {"key-expired"}), ("sha1", {"key-sha1"})]
)
def test_a_key(site: Site, signer: Signer, kind: str, codes: set[str]) -> None:
    key = signer.keys[kind]
    content = base64.b64encode(key.armored).decode()
    site.root(
        f"mkdir -p /etc/apt/keyrings; echo {content} | base64 -d > {KEYRING};"
        f" echo 'deb [signed-by={KEYRING}] http://127.0.0.1:9/cuda/debian13 /' > {SOURCE}"
    )
    look = site.look()
    assert {code for code in look.codes if code.startswith("key-")} == codes
    for code in codes:
        reason = look.reason(code)
        assert key.fingerprint in reason["message"]
        # The role brings the repository's key: the next deploy writes it anew.
        assert reason["repair"] == f"pyinfra --limit {HOST} inventory deploys/llm.py"
