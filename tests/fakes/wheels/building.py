"""Makes the wheels, and locks of them; the same version has the same bytes wherever it is made."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SGLANG", "TRTLLM", "Project", "lock", "wheel"]

_HERE = Path(__file__).resolve().parent
_LONG_AGO = (2026, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Project:
    """A distribution called *name*, whose package is *package* and which installs *scripts*."""

    name: str
    package: str
    scripts: str = ""


SGLANG = Project("sglang", "sglang")
TRTLLM = Project(
    "tensorrt-llm", "tensorrt_llm", "[console_scripts]\ntrtllm-serve = tensorrt_llm.serve:main\n"
)


def wheel(project: Project, version: str, directory: Path) -> Path:
    """*version* of *project* as a wheel for every Python, in *directory*."""
    package, info = project.package, f"{project.package}-{version}.dist-info"
    files = {f"{package}/{path.name}": path.read_bytes() for path in (_HERE / package).glob("*.py")}
    for path in (_HERE.parent / "engine").glob("*.py"):
        files[f"{package}/standin/{path.name}"] = path.read_bytes()
    metadata = (
        f"Metadata-Version: 2.1\nName: {project.name}\nVersion: {version}\n"
        "Summary: A stand-in with the name of an engine\n"
    )
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    if project.scripts:
        files[f"{info}/entry_points.txt"] = project.scripts.encode()
    record = f"{info}/RECORD"
    rows = [f"{name},sha256={_digest(files[name])},{len(files[name])}" for name in sorted(files)]
    files[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    directory.mkdir(parents=True, exist_ok=True)
    made = directory / f"{package}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), files[name])
    return made


def _digest(content: bytes) -> str:
    found = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return found.rstrip(b"=").decode()


def lock(project: Project, version: str, made: Path) -> str:
    """The requirements that pin *made* by its hash, as ``uv pip compile`` writes them."""
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    return f"{project.name}=={version} \\\n    --hash=sha256:{digest}\n"
