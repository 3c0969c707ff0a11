"""What the files of models say of them: configurations, adapters, heads of GGUF files."""

from __future__ import annotations

import base64
import binascii
import io
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

import farrier.weights.gguf
import farrier.weights.safetensors
from farrier.weights.adapter import Adapter, parse_adapter
from farrier.weights.config import ConfigError, ModelConfig
from farrier.weights.config import parse as parse_config
from farrier.weights.gguf import Gguf, GgufError, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.facts.roots import Roots

__all__ = ["GgufFound", "Weights", "WeightsFacts", "parse"]


@dataclass(frozen=True, slots=True)
class GgufFound:
    """A GGUF file: its *size* in bytes, None where there is no file; *problem* says what ails it.

    *head* is None with a problem, and where it could not be read.
    """

    size: int | None = None
    head: Gguf | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class WeightsFacts:
    """By the paths that were asked about; what is not there is absent.

    *configs* and *adapters* may hold a problem instead, in words. *shards* are the safetensors
    files that no engine could load, with what is wrong.
    """

    configs: Mapping[str, ModelConfig | str] = field(default_factory=dict)
    adapters: Mapping[str, Adapter | str] = field(default_factory=dict)
    ggufs: Mapping[str, GgufFound] = field(default_factory=dict)
    shards: Mapping[str, str] = field(default_factory=dict)


MOST_JSON = 262_144
"""Bytes of a configuration; a longer one is not judged."""
HEAD = 65_536
"""Bytes of a GGUF that are sent where the host has no Python to read its whole head."""
SECONDS = 20
"""For reading a head, which may be on a slow disk."""

_SCRIPT = r"""
told() { # WORD FILE PATH: the file, unless it is too long
    [ ! -d "$2" ] || echo "$1 -directory $3"
    [ -f "$2" ] || return
    [ -s "$2" ] || { echo "$1 -empty $3"; return; }
    [ "$(stat -Lc %s "$2")" -le __MOST__ ] && echo "$1 $(base64 -w0 < "$2") $3"
}
for d in __MODELS__; do told config "$d/config.json" "$d"; done
for d in __ADAPTERS__; do told adapter "$d/adapter_config.json" "$d"; done
headers() { cat <<'FARRIER_HEADERS'
__HEADERS__
FARRIER_HEADERS
}
for d in __MODELS__; do
    set -- "$d"/*.safetensors
    [ -e "$1" ] && has python3 &&
        headers | timeout -k 2 __SECONDS__ python3 -I - "$@" 2>/dev/null
done
reader() { cat <<'FARRIER_READER'
__READER__
FARRIER_READER
}
for f in __GGUFS__; do
    [ -f "$f" ] || { echo "gguf - $f"; continue; }
    echo "gguf $(stat -Lc %s "$f") $f"
    said=$(has python3 && reader | timeout -k 2 __SECONDS__ python3 -I - "$f" 2>/dev/null)
    if [ -n "$said" ]; then echo "read $(echo "$said" | base64 -w0) $f"
    else echo "head $(head -c __HEAD__ "$f" | base64 -w0) $f"; fi
done; true
"""


class Weights(FactBase[WeightsFacts | None]):
    """:class:`WeightsFacts`; None when the host did not answer."""

    def command(
        self,
        roots: Roots,
        models: Sequence[str] = (),
        adapters: Sequence[str] = (),
        ggufs: Sequence[str] = (),
    ) -> str:
        """Three processes for each model, of which one is Python, and one for each GGUF."""
        headers = Path(farrier.weights.safetensors.__file__).read_text(encoding="utf-8")
        reader = Path(farrier.weights.gguf.__file__).read_text(encoding="utf-8") if ggufs else ""
        values = {
            "__MOST__": str(MOST_JSON),
            "__HEAD__": str(HEAD),
            "__SECONDS__": str(SECONDS),
            "__MODELS__": " ".join(map(shlex.quote, models)),
            "__ADAPTERS__": " ".join(map(shlex.quote, adapters)),
            "__GGUFS__": " ".join(map(shlex.quote, ggufs)),
            "__HEADERS__": headers if models else "",
            "__READER__": reader,
        }
        script = _SCRIPT
        for name, value in values.items():
            script = script.replace(name, value)
        return roots.shell() + script

    @staticmethod
    def default() -> WeightsFacts | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> WeightsFacts:
        """Parse what the script printed."""
        return parse(output)


def parse(output: Sequence[str]) -> WeightsFacts:
    """Parse lines of a word, what was read, and the path that it is of."""
    configs: dict[str, ModelConfig | str] = {}
    adapters: dict[str, Adapter | str] = {}
    ggufs: dict[str, GgufFound] = {}
    shards: dict[str, str] = {}
    for line in output:
        kind, _, rest = line.partition(" ")
        said, _, path = rest.partition(" ")
        if not path.startswith("/"):
            continue
        match kind:
            case "config":
                configs[path] = _config(said)
            case "adapter":
                adapters[path] = _adapter(said)
            case "shard":
                shards[path] = _bytes(said).decode(errors="replace")
            case "gguf":
                ggufs[path] = GgufFound(int(said) if said.isdigit() else None)
            case "read" | "head" if path in ggufs:
                ggufs[path] = _gguf(ggufs[path], kind, said)
    return WeightsFacts(configs, adapters, ggufs, shards)


def _bytes(said: str) -> bytes:
    try:
        return base64.b64decode(said, validate=True)
    except (binascii.Error, ValueError):
        return b""


_NO_FILE = {"-directory": "is a directory", "-empty": "is empty"}


def _config(said: str) -> ModelConfig | str:
    if said in _NO_FILE:
        return _NO_FILE[said]
    try:
        return parse_config(_bytes(said))
    except ConfigError as error:
        return str(error)


def _adapter(said: str) -> Adapter | str:
    if said in _NO_FILE:
        return _NO_FILE[said]
    try:
        return parse_adapter(_bytes(said))
    except ConfigError as error:
        return str(error)


def _gguf(found: GgufFound, kind: str, said: str) -> GgufFound:
    data = _bytes(said)
    try:
        head = _told(data) if kind == "read" else read(io.BytesIO(data), whole=False)
    except (GgufError, ValueError, TypeError) as error:
        return GgufFound(found.size, None, str(error))
    if head.needs is not None and found.size is not None and found.size < head.needs:
        short = f"is cut short: {found.size} of at least {head.needs} bytes"
        return GgufFound(found.size, head, short)
    return GgufFound(found.size, head)


def _told(data: bytes) -> Gguf:
    """What the reader on the host printed."""
    said = json.loads(data)
    if "problem" in said:
        raise GgufError(said["problem"])
    return Gguf(**said)
