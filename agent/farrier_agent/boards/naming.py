"""Which GPU a person means: by its index, its UUID, or the beginning of that. Pure."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["meant"]

_PREFIX = "GPU-"


def meant(word: str, gpus: Iterable[tuple[int, str]]) -> str:
    """The UUID of the one of *gpus* (index, UUID) that *word* means.

    The beginning of a UUID may be without its ``GPU-``. Digits alone are an index where there is
    such a GPU. Raises ValueError that names those that there are.
    """
    known = sorted(gpus)
    if word.isascii() and word.isdigit():
        by_index = [uuid for index, uuid in known if index == int(word)]
        if len(by_index) == 1:
            return by_index[0]
    begin = word if word.upper().startswith(_PREFIX) else _PREFIX + word
    found = [uuid for _, uuid in known if word and uuid.lower().startswith(begin.lower())]
    if len(found) == 1:
        return found[0]
    have = ", ".join(f"{index} ({uuid})" for index, uuid in known) or "none"
    how = f"{len(found)} GPUs begin with {word}" if found else f"no GPU is named {word}"
    raise ValueError(f"{how} (known: {have})")
