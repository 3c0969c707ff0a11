"""Small .deb packages with a vendor's names, versions and relations."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Deb", "Package", "build"]


@dataclass(frozen=True)
class Package:
    """What is in a package. *files* maps a path to its content; one that begins with #! can run.
    *links* maps a path to where it leads.

    *relations* are fields of the control file (Depends, Provides, Conflicts, Replaces).
    """

    name: str
    version: str
    relations: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    about: str = "stand-in package"
    architecture: str = "amd64"
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """As a repository calls it; a version's epoch is not in it."""
        version = self.version.rpartition(":")[2]
        return f"{self.name}_{version}_{self.architecture}.deb"

    @property
    def control(self) -> str:
        """The control file."""
        relations = "".join(f"{name}: {value}\n" for name, value in self.relations.items() if value)
        return (
            f"Package: {self.name}\nVersion: {self.version}\nArchitecture: {self.architecture}\n"
            f"Maintainer: Stand-in <nobody@example.invalid>\nSection: misc\nPriority: optional\n"
            f"{relations}Description: {self.about}\n Made for tests; nothing of the vendor's.\n"
        )


@dataclass(frozen=True)
class Deb:
    """A built package."""

    package: Package
    path: Path
    content: bytes = field(repr=False)

    def stanza(self, filename: str) -> str:
        """Its paragraph in a Packages file."""
        control, _, description = self.package.control.partition("Description:")
        return (
            f"{control}Filename: {filename}\nSize: {len(self.content)}\n"
            f"SHA256: {hashlib.sha256(self.content).hexdigest()}\nDescription:{description}"
        )


def build(package: Package, directory: Path) -> Deb:
    """Build *package* with dpkg-deb in *directory*."""
    tree = directory / "trees" / f"{package.name}_{package.version}"
    control = tree / "DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text(package.control, encoding="utf-8")
    for name, script in package.scripts.items():
        path = control / name
        path.write_text(f"#!/bin/sh\nset -e\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
    for name, content in package.files.items():
        path = tree / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        path.chmod(0o755 if content.startswith("#!") else 0o644)
    for name, target in package.links.items():
        (tree / name.lstrip("/")).symlink_to(target)
    conffiles = [name for name in package.files if name.startswith("/etc/")]
    if conffiles:
        (control / "conffiles").write_text("\n".join(conffiles) + "\n", encoding="utf-8")
    out = directory / "debs" / package.file_name
    out.parent.mkdir(exist_ok=True)
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, out],
        check=True,
        capture_output=True,
    )
    return Deb(package, out, out.read_bytes())
