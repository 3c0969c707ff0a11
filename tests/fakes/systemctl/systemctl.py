"""A stand-in for ``systemctl show``: prints units as systemd 252 to 257 do, from a JSON file.

``$FAKE_SYSTEMCTL`` is the file: ``{"units": {"a.service": {"ActiveState": "active", …}}}``. A unit
that is not in it is *not-found*, as with the real one. Further keys:

- ``"fail": "Failed to connect to bus"`` prints that on stderr and exits 1;
- ``"hang": 30`` sleeps so many seconds first;
- ``"once": {"exists": PATH, "then": {…}}``: as soon as PATH exists, *then* becomes the content of
  the file, for good. So a test lets something happen exactly when a file appeared.

Every call appends its arguments as a line to ``<file>.calls``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ORDER = ("MainPID", "Id", "Names", "LoadState", "ActiveState", "SubState", "InvocationID")


def load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(path.read_text())
    once = state.get("once")
    if once and Path(once["exists"]).exists():
        state = once["then"]
        fresh = path.with_suffix(".once")
        fresh.write_text(json.dumps(state))
        fresh.replace(path)
    return state


def block(name: str, unit: dict[str, str] | None, wanted: set[str]) -> str:
    values = {
        "MainPID": "0",
        "Id": name,
        "Names": name,
        "LoadState": "loaded" if unit is not None else "not-found",
        "ActiveState": "inactive",
        "SubState": "dead",
        "InvocationID": "",
    }
    values |= unit or {}
    return "".join(f"{key}={values[key]}\n" for key in ORDER if key in wanted)


def main() -> int:
    path = Path(os.environ["FAKE_SYSTEMCTL"])
    with Path(f"{path}.calls").open("a") as calls:
        calls.write(" ".join(sys.argv[1:]) + "\n")
    state = load(path)
    time.sleep(state.get("hang", 0))
    if "fail" in state:
        print(state["fail"], file=sys.stderr)
        return 1
    if sys.argv[1:2] != ["show"]:
        print(f"the stand-in systemctl only knows show, not {sys.argv[1:]}", file=sys.stderr)
        return 1
    option = next(word for word in sys.argv if word.startswith("--property="))
    wanted = set(option.partition("=")[2].split(","))
    names = [word for word in sys.argv[2:] if not word.startswith("-")]
    print("\n".join(block(name, state["units"].get(name), wanted) for name in names), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
