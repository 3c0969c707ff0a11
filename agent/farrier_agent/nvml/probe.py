"""Questions to one GPU: what it cannot answer is absent, and is not asked again.

Nothing here knows what is asked: see :mod:`farrier_agent.nvml.readings`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from farrier_agent.nvml.errors import NvmlError, kind_of
from farrier_agent.nvml.fields import Batch
from farrier_agent.nvml.values import convert, convert_text

__all__ = ["Library", "LostError", "Probe"]

INVALID_ARGUMENT = 2
NOT_FOUND = 6
FUNCTION_NOT_FOUND = 13

_UNSUPPORTED = frozenset({3, FUNCTION_NOT_FOUND, 25, 26})  # 25: of a structure's version
_LOST = frozenset({15, 28})
_USELESS = frozenset({1, 9, 18})

_ADVICE = {
    4: "the agent needs to read and write /dev/nvidiactl and /dev/nvidia*: ls -l /dev/nvidia*",
    9: "lsmod | grep nvidia shows whether its module is loaded, modprobe nvidia loads it, and "
    "journalctl -k says why not",
    12: "install the driver's libraries, or set nvml_library in agent.toml",
    13: "the library is older than any that this agent knows: install a driver from 535 on",
    18: "the driver was upgraded under the running kernel module: reboot the host, or stop "
    "what uses the GPUs and reload the nvidia modules",
}


class LostError(Exception):
    """NVML does not find the GPU any more; the message has its words."""


class Library:
    """A loaded NVML: its functions, each looked up once, and what its GPUs have in common.

    *nvml* is the pynvml module. *calling* is told a function and the index of a GPU before every
    call, -1 for none. *invalid* counts the samples that are dropped, by field.
    """

    def __init__(
        self, nvml: Any, calling: Callable[[str, int], None], invalid: dict[str, int]
    ) -> None:
        self.nvml = nvml
        self.invalid = invalid
        self._calling = calling
        self._error = nvml.NVMLError
        self._functions: dict[str, Callable[..., Any] | None] = {}
        self._pointers: dict[str, Callable[..., int] | None] = {}

    def call(self, function: str, index: int, *args: object) -> tuple[int, Any]:
        """The return code and, where it is 0, the answer of pynvml's *function*.

        Raises :class:`NvmlError` where the code says that NVML as a whole is of no use.
        """
        try:
            bound = self._functions[function]
        except KeyError:
            bound = self._functions[function] = getattr(self.nvml, function, None)
        if bound is None:
            return FUNCTION_NOT_FOUND, None
        self._calling(function, index)
        try:
            return 0, bound(*args)
        except self._error as error:
            return self._checked(function, error.value), None
        except UnicodeDecodeError as error:
            return 0, error.object  # no text, as whoever wants one will see

    def call_pointer(self, symbol: str, function: str, index: int, *args: object) -> int:
        """The return code of the C function *symbol*, which *calling* is told as *function*.

        Raises as :meth:`call`.
        """
        try:
            bound = self._pointers[symbol]
        except KeyError:
            bound = self._pointers[symbol] = getattr(self.nvml.nvmlLib, symbol, None)
        if bound is None:
            return FUNCTION_NOT_FOUND
        self._calling(function, index)
        return self._checked(function, bound(*args))

    def words(self, code: int) -> str:
        """NVML's own words for a return code."""
        return str(self._error(code))

    def useless(self, function: str, code: int) -> NvmlError:
        """The error of *function* as one of NVML as a whole, with what to do about it."""
        advice = f": {_ADVICE[code]}" if code in _ADVICE else ""
        words = f"{function}: {self.words(code)}{advice}"
        return NvmlError(words, kind=kind_of(code), code=code, call=function)

    def _checked(self, function: str, code: int) -> int:
        if code in _USELESS:
            raise self.useless(function, code)
        if code == FUNCTION_NOT_FOUND:
            self._functions[function] = None
        return code


class Probe:
    """One GPU. *index* is the one it is enumerated by, ``handle`` what NVML knows it by.

    ``fields`` are the values of the last batches, by name and scope, and ``batch`` is the one of
    every reading; ``kept`` is what rarer readings leave for those. A reading begins with
    :meth:`begin`.
    """

    def __init__(self, library: Library, index: int) -> None:
        self.library = library
        self.nvml = library.nvml
        self.index = index
        self.handle: Any = None
        self.batch = Batch(self.nvml, ())
        self.fields: dict[tuple[str, int], float] = {}
        self.kept: dict[str, Any] = {}
        self.answered = False
        self._unsupported: set[tuple[object, ...]] = set()
        self._failed: dict[str, list[str]] = {}
        self._odd: dict[str, object] = {}

    def begin(self) -> None:
        """Forget how the last reading went; what is not supported stays known."""
        self.answered = False
        self._failed = {}
        self._odd = {}

    def ask(self, function: str, *args: object) -> Any:
        """What pynvml's *function* answers of this GPU for *args*, None where it does not.

        Raises :class:`LostError`, and :class:`NvmlError` where NVML as a whole is of no use.
        """
        key = (function, *args)
        if key in self._unsupported:
            return None
        code, answer = self.library.call(function, self.index, self.handle, *args)
        return answer if self._accept(key, function, code, bool(args)) else None

    def fill(self, function: str, structure: Any) -> Any:
        """*structure* as pynvml's *function* fills it, None where it does not. Raises as ask."""
        key = (function, type(structure))
        if key in self._unsupported:
            return None
        reference = ctypes.byref(structure)
        code, _ = self.library.call(function, self.index, self.handle, reference)
        return structure if self._accept(key, function, code, True) else None

    def pointer(self, function: str, *args: object, suffix: str = "") -> int | None:
        """The return code of the C *function* with *suffix*, None where it will never answer.

        Codes that only concern the arguments are the caller's. Raises as :meth:`ask`.
        """
        key = (function, suffix)
        if key in self._unsupported:
            return None
        code = self.library.call_pointer(
            function + suffix, function, self.index, self.handle, *args
        )
        if code == 7:  # NVML_ERROR_INSUFFICIENT_SIZE: an answer to whoever gave the size
            self.answered = True
            return code
        self._accept(key, function, code)
        return None if key in self._unsupported else code

    def ask_of(self, other: Any, function: str, *args: object) -> Any:
        """As :meth:`ask`, of the handle of an *other* thing, as a MIG device of this GPU is. That
        there is none is no error, and nothing is remembered.
        """
        code, answer = self.library.call(function, self.index, other, *args)
        if code not in _UNSUPPORTED | {NOT_FOUND}:
            self._accept((), function, code)
        return answer

    def supports(self, function: str, *args: object) -> bool:
        """Whether :meth:`ask` would still ask."""
        return (function, *args) not in self._unsupported

    def never(self, function: str, variant: object) -> None:
        """Do not :meth:`fill` *variant* by *function* any more: this GPU has no such thing."""
        self._unsupported.add((function, variant))

    def field(self, name: str, scope: int = 0) -> float | None:
        """The field value *name* of this reading."""
        return self.fields.get((name, scope))

    def field_or(self, name: str, function: str, *args: object) -> Any:
        """The field value *name*; where the GPU does not support it, what *function* answers."""
        if (name, 0) in self.batch:
            return self.fields.get((name, 0))
        return self.ask(function, *args)

    def value(self, field: str, raw: float | None) -> Any:
        """*raw* in the base unit of *field*; None, counted and told, if no GPU can have it."""
        if raw is None:
            return None
        value = convert(field, raw)
        if value is None:
            self.odd(field, raw)
        return value

    def text(self, field: str, raw: str | bytes | None) -> str | None:
        """*raw* as a line of text; None, counted and told, if it is not empty and no text."""
        if not raw:
            return None
        text = convert_text(raw)
        if text is None:
            self.odd(field, raw[:32])
        return text

    def odd(self, field: str, raw: object) -> None:
        """Count a sample of *field* that is dropped."""
        self.library.invalid[field] = self.library.invalid.get(field, 0) + 1
        self._odd[field] = raw

    def failed(self, what: str, code: int) -> None:
        """Note that *what* failed."""
        self._failed.setdefault(self.library.words(code), []).append(what)

    def lose(self, function: str, code: int) -> None:
        """Raise :class:`LostError`."""
        raise LostError(f"{function}: {self.library.words(code)}")

    def problems(self) -> list[str]:
        """What went wrong in this reading, a line for each error and each odd field."""
        who = f"GPU {self.index}"
        lines = [f"{who}: {_listed(what)}: {words}" for words, what in self._failed.items()]
        lines += [f"{who}: {field}: {raw!r} is out of range" for field, raw in self._odd.items()]
        return lines

    def _accept(
        self, key: tuple[object, ...], function: str, code: int, more: bool = False
    ) -> bool:
        if code == 0:
            self.answered = True
            return True
        # an argument of *more* that an older library does not know; without, it is the handle
        if code in _UNSUPPORTED or (code == INVALID_ARGUMENT and more):
            self.answered = True
            self._unsupported.add(key)
        elif code in _LOST:
            self.lose(function, code)
        else:
            self.failed(function, code)
        return False


def _listed(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
