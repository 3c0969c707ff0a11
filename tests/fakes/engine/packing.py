"""The whole engine as one file, to be copied to a host and run with its Python 3."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

__all__ = ["packed"]

_MAIN = "import sys\nfrom standin.program import main\nsys.exit(main())\n"


def packed() -> bytes:
    """A zip archive that Python runs as it is, whatever the file is called."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(Path(__file__).parent.glob("*.py")):
            if path.name not in {"packing.py", "standin.py"}:
                archive.writestr(f"standin/{path.name}", path.read_text(encoding="utf-8"))
        archive.writestr("__main__.py", _MAIN)
    return buffer.getvalue()
