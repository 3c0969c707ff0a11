"""A stand-in for ``nvidia-bug-report.sh``: ``--output-file FILE`` writes FILE.gz.

Lines of the state file that only it knows: ``bug-report.hang 1`` writes a part, packed by nobody,
and does not return; ``bug-report.text <words>`` are words more in the report.
"""

from __future__ import annotations

import gzip
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fakes.nvidia_tools.state import State
else:  # by itself, wherever these files were put
    sys.path.insert(0, str(Path(__file__).parent))
    from state import State


def main(words: list[str]) -> int:
    """Write the report; the exit code."""
    state = State()
    path = Path(words[words.index("--output-file") + 1])
    text = f"Start of NVIDIA bug report log file.\n{state.get('bug-report.text')}\n"
    if state.get("bug-report.hang") == "1":
        path.write_text(text)
        time.sleep(600)
    text += "End of NVIDIA bug report log file.\n"
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode()))
    print("nvidia-bug-report.sh will now collect information about your system\n\n\ncomplete.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
