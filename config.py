"""pyinfra's project file, read from the current directory before the inventory is resolved.

It makes ``pyinfra inventory deploys/llm.py`` mean inventory/production.py (another file with
FARRIER_ENV), and checks the inventory before any host is touched: see farrier/inventory.py.
"""

import sys
from pathlib import Path

from pyinfra import config

config.REQUIRE_PYINFRA_VERSION = "~=3.10.0"  # farrier.inventory wraps private names of it

_root = Path(__file__).resolve().parent
sys.path.insert(0, str(_root))

from farrier.inventory import install  # noqa: E402 - importable from here on

install(_root)
