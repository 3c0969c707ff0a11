"""Repositories of the vendors' layouts: NVIDIA's is flat, Ubuntu's has dists and pool."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from pathlib import Path

from tests.fakes.nvidia_repo.debs import Deb
from tests.fakes.nvidia_repo.signing import KINDS, Signer

__all__ = ["archive", "flat"]


def _release(head: str, indices: Mapping[str, bytes]) -> str:
    sums = "".join(
        f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
        for name, content in indices.items()
    )
    return f"{head}Date: {formatdate(usegmt=True).replace('GMT', 'UTC')}\nSHA256:\n{sums}"


def flat(root: Path, debs: Sequence[Deb], signer: Signer, where: str) -> None:
    """NVIDIA's layout at ``root/KIND/where`` (``debian12/x86_64``), signed by each kind of key.

    Beside it lies that key under NVIDIA's name for it. ``forged`` is signed by the wrong key and
    has the good one beside it.
    """
    index = "\n".join(deb.stanza(f"./{deb.path.name}") for deb in debs).encode()
    head = f"Origin: NVIDIA\nLabel: NVIDIA CUDA\nArchitecture: {where.rpartition('/')[2]}\n"
    release = _release(head, {"Packages": index})
    for name, kind, shown in (*((kind, kind, kind) for kind in KINDS), ("forged", "wrong", "good")):
        directory = root / name / where
        directory.mkdir(parents=True)
        (directory / "Packages").write_bytes(index)
        (directory / "Release").write_text(release, encoding="utf-8")
        (directory / "InRelease").write_text(signer.sign(release, kind), encoding="utf-8")
        key = signer.keys[shown]
        (directory / f"{key.fingerprint[-8:].lower()}.pub").write_bytes(key.armored)
        for deb in debs:
            os.link(deb.path, directory / deb.path.name)


def archive(
    root: Path, components: Mapping[str, Sequence[Deb]], signer: Signer, codename: str
) -> None:
    """Ubuntu's layout at ``root/ubuntu``, signed with the good key, which is beside it."""
    pool = root / "ubuntu" / "pool"
    dist = root / "ubuntu" / "dists" / codename
    indices: dict[str, bytes] = {}
    for component, debs in components.items():
        (pool / component).mkdir(parents=True)
        for deb in debs:
            os.link(deb.path, pool / component / deb.path.name)
        text = "\n".join(deb.stanza(f"pool/{component}/{deb.path.name}") for deb in debs)
        name = f"{component}/binary-amd64/Packages"
        (dist / name).parent.mkdir(parents=True)
        (dist / name).write_text(text, encoding="utf-8")
        indices[name] = text.encode()
    head = (
        f"Origin: Ubuntu\nLabel: Ubuntu\nSuite: {codename}\nCodename: {codename}\n"
        f"Architectures: amd64\nComponents: {' '.join(components)}\n"
    )
    release = _release(head, indices)
    (dist / "InRelease").write_text(signer.sign(release, "good"), encoding="utf-8")
    (root / "ubuntu" / "key.asc").write_bytes(signer.keys["good"].armored)
