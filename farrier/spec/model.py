"""A model as the operator writes it: which engine serves it, from where, on which GPUs."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from farrier.spec.images import ArchiveImage, RegistryImage, parse_archive, parse_image
from farrier.spec.problems import NOWHERE, Place

__all__ = ["Argument", "HubSource", "Model", "OllamaSource", "PathSource", "parse_source"]

Argument = str | int | float | bool
"""The value of an engine's flag; ``True`` stands for a flag without a value."""

FIRST_PORT = 8101
START_TIMEOUT = 600.0
MASTER_PORT = 29501
"""vLLM's own (0.32.0, config/parallel.py)."""

_HUB = re.compile(
    r"(?P<repo>[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})"
    r"@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{0,127})"
)
_OLLAMA = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._/-]{0,127}(:[A-Za-z0-9][A-Za-z0-9._-]{0,79})?)"
    r"@(sha256:)?(?P<digest>[0-9a-f]{64})"
)
_SECRET_NAME = re.compile(r"(^|[_-])(TOKEN|API[_-]?KEY|SECRET|PASSWORD|PASSWD|ACCESS[_-]?KEY)$")
_SECRET_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})")


@dataclass(frozen=True)
class PathSource:
    """A directory on the host that holds the model (``config.json`` and its weights), or a GGUF."""

    path: PurePosixPath

    @property
    def gguf(self) -> bool:
        """Whether it is a single file in GGUF's format, by its name."""
        return self.path.suffix == ".gguf"


@dataclass(frozen=True)
class HubSource:
    """A repository of the Hugging Face hub at a fixed revision (commit, tag or branch)."""

    repo: str
    revision: str


@dataclass(frozen=True)
class OllamaSource:
    """A model of Ollama's library, by the SHA-256 of its manifest (64 hexadecimal digits)."""

    name: str
    digest: str


def parse_source(source: object) -> PathSource | HubSource | OllamaSource:
    """Parse ``path:/absolute/directory``, ``hf:organisation/name@revision``, ``ollama:…``.

    Raises :class:`ValueError` with a sentence for the operator.
    """
    if not isinstance(source, str):
        raise ValueError(f"must be text, not {type(source).__name__}")
    kind, _, rest = source.partition(":")
    if kind == "path":
        path = PurePosixPath(rest)
        if not path.is_absolute():
            raise ValueError(f"{rest!r} is not absolute; write path:/srv/models/NAME")
        if ".." in path.parts or not re.fullmatch(r"[A-Za-z0-9._/+@=-]+", rest):
            raise ValueError(
                f"{rest!r}: a model's path has letters, digits and . _ / + @ = - only, and no '..'"
            )
        return PathSource(path)
    if kind == "hf":
        if "@" not in rest:
            raise ValueError(
                f"{source!r} has no revision, so hosts set up on different days would serve "
                f"different weights; write {source}@REVISION with a commit of the repository"
            )
        match = _HUB.fullmatch(rest)
        if match is None:
            raise ValueError(f"{source!r} is not of the form hf:organisation/name@revision")
        return HubSource(match["repo"], match["revision"])
    if kind == "ollama":
        match = _OLLAMA.fullmatch(rest)
        if match is None:
            raise ValueError(
                f"{source!r} is not pinned, so hosts set up on different days would serve different"
                " weights; write ollama:NAME:TAG@DIGEST with the 64 digits of its manifest's"
                " SHA-256 (digest in: curl 127.0.0.1:11434/api/tags, on a machine that has it)"
            )
        return OllamaSource(match["name"], match["digest"])
    raise ValueError(
        f"{source!r}: write path:/srv/models/NAME for a directory on the host, "
        "or hf:organisation/name@revision"
    )


def is_secret_name(name: str) -> bool:
    """Whether a variable or flag of this *name* usually holds a secret (``HF_TOKEN``)."""
    return _SECRET_NAME.search(name.upper()) is not None


def is_secret(name: str, value: object) -> bool:
    """Whether *name* or the look of *value* says that this is a secret."""
    return is_secret_name(name) or (
        isinstance(value, str) and _SECRET_VALUE.search(value) is not None
    )


@dataclass(frozen=True, init=False, repr=False)
class Model:
    """One replica of a model on each host that the surrounding data belongs to.

    =============== ============================================================================
    ``name``        what clients write in the request's ``model`` field
    ``engine``      ``vllm``, ``sglang``, ``trtllm``, ``ollama``, ``llama_cpp``,
                    ``transformers``; ``tgi``, ``triton`` by a ``command``; ``custom`` for any
                    other OpenAI-compatible server (docs/engines.md)
    ``source``      ``path:/absolute/directory`` or ``path:/absolute/file.gguf`` on the host, or
                    ``hf:organisation/name@revision``; ``ollama:name:tag@digest`` for ``ollama``
    ``gpus``        indices of the GPUs as nvidia-smi numbers them; none where accelerator is cpu
    ``port``        loopback port of the engine
    ``args``        the engine's own flags, without dashes: ``{"max-model-len": 8192}``; ``True``
                    for a flag without a value
    ``lora``        LoRA adapters of a vLLM, by the name that clients ask for:
                    ``{"law": "path:/srv/adapters/law"}``
    ``env``         environment of the engine; no secrets
    ``replica``     name of the replica and of its unit ``engine-<replica>``; default: ``name``
    ``start_timeout`` seconds from start to the first answer of the health endpoint
    ``command``     not for ``vllm``, ``ollama`` and ``transformers``: the engine's argv, with
                    ``{host}`` ``{port}`` ``{model}`` and ``{path}`` (where ``source`` is on the
                    host)
    ``image``       the image that ``command`` is in and runs from, by podman:
                    ``registry/name@sha256:digest``
    ``image_archive`` the same from a file: ``/path/on/this/machine.tar@sha256:hash``
    ``hosts``       of a vLLM over several hosts: their names, first the one whose data this is,
                    which clients ask (docs/layouts.md); each gives it its ``gpus``
    ``master_port`` where they meet, at the first host's ``address``
    =============== ============================================================================

    Nothing is checked here: :func:`farrier.spec.read_host` reports every problem of an inventory
    at once, each with the line that this remembers.
    """

    name: str
    engine: str
    source: str
    gpus: tuple[int, ...]
    port: int
    args: Mapping[str, Argument]
    lora: Mapping[str, str]
    env: Mapping[str, str]
    replica: str
    start_timeout: float
    command: tuple[str, ...] | None
    image: str
    image_archive: str
    hosts: tuple[str, ...]
    master_port: int
    unknown: Mapping[str, object] = field(compare=False)
    place: Place = field(compare=False)

    def __init__(
        self,
        name: str = "",
        *,
        engine: str = "vllm",
        source: str = "",
        gpus: Sequence[int] = (),
        port: int = FIRST_PORT,
        args: Mapping[str, Argument] | None = None,
        lora: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        replica: str | None = None,
        start_timeout: float = START_TIMEOUT,
        command: Sequence[str] | None = None,
        image: str = "",
        image_archive: str = "",
        hosts: Sequence[str] = (),
        master_port: int = MASTER_PORT,
        **unknown: object,
    ) -> None:
        values: dict[str, object] = {
            "name": name,
            "engine": engine,
            "source": source,
            "gpus": _frozen(gpus),
            "port": port,
            "args": {} if args is None else args,
            "lora": {} if lora is None else lora,
            "env": {} if env is None else env,
            "replica": name if replica is None else replica,
            "start_timeout": start_timeout,
            "command": _frozen(command),
            "image": image,
            "image_archive": image_archive,
            "hosts": _frozen(hosts),
            "master_port": master_port,
            "unknown": unknown,
            "place": _caller(),
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def __repr__(self) -> str:
        # pyinfra logs group data with %r: an environment does not belong there
        return f"Model({self.name!r}, engine={self.engine!r}, port={self.port!r})"

    @property
    def unit(self) -> str:
        """The systemd unit that runs this replica."""
        return f"engine-{self.replica}.service"

    @property
    def spans(self) -> int:
        """How many hosts this replica is spread over."""
        return max(len(self.hosts), 1) if isinstance(self.hosts, tuple) else 1

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of its LoRA adapters, as clients ask for them."""
        return tuple(self.lora) if isinstance(self.lora, Mapping) else ()

    def parsed_source(self) -> PathSource | HubSource | OllamaSource:
        """The source, typed. Raises :class:`ValueError` if it is none."""
        return parse_source(self.source)

    def parsed_image(self) -> RegistryImage | ArchiveImage | None:
        """The image that its engine runs from, None for one that is installed on the host.

        Raises :class:`ValueError` if what stands there is none.
        """
        if self.image:
            return parse_image(self.image)
        return parse_archive(self.image_archive) if self.image_archive else None

    def custom_argv(self, host: str, path: str) -> tuple[str, ...]:
        """``command`` with its placeholders filled in; *path* is the model's directory."""
        values = {
            "{host}": host,
            "{port}": str(self.port),
            "{model}": self.name,
            "{path}": path,
        }
        return tuple(
            re.sub(r"\{(host|port|model|path)\}", lambda match: values[match[0]], word)
            for word in self.command or ()
        )

    def to_json(self) -> dict[str, Any]:
        """This model as plain values; what looks like a secret is masked. Used by pyinfra."""
        shown = [
            *("name", "replica", "engine", "source", "gpus", "port", "lora", "start_timeout"),
            *("image", "image_archive"),
        ]
        shown += ["hosts", "master_port"] if self.hosts else []
        command = self.command
        if isinstance(command, tuple):
            command = tuple("***" if is_secret("", word) else word for word in command)
        return {key: getattr(self, key) for key in shown} | {
            "command": command,
            "args": _masked(self.args),
            "env": _masked(self.env),
        }


def _frozen(value: Any) -> Any:
    # a str is a sequence too, and a mistake here: left as it is, it will be reported
    return tuple(value) if isinstance(value, list) else value


def _masked(values: object) -> object:
    if not isinstance(values, Mapping):
        return repr(type(values).__name__)
    return {
        str(key): "***" if is_secret(str(key), value) else value for key, value in values.items()
    }


def _caller() -> Place:
    """The line outside of this module (and of dataclasses.replace) that builds a Model."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__") in (__name__, "dataclasses"):
        frame = frame.f_back
    if frame.f_globals.get("__name__") in (__name__, "dataclasses"):
        return NOWHERE
    return Place(frame.f_code.co_filename, frame.f_lineno)
