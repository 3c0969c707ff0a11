"""Any status at all: what the types allow, however unlikely, for tests that search."""

from __future__ import annotations

from typing import Any

from farrier_agent.status import Status
from hypothesis import strategies as st
from msgspec import inspect

__all__ = ["anything", "statuses"]

MOST = 2
"""Of what there can be several of: two are enough to clash."""
# few different ones, so that names come twice; quotes, line ends and what is no ASCII among them
NAMES = st.sampled_from(("", "a", "b", 'q"', "\\n", "\n", "\r\n", "é ", "{x}", "?"))
BROKEN = "\udcff"
"""What a byte becomes that is no Unicode."""
TEXTS = NAMES | st.just(BROKEN) | st.text(max_size=4)
NUMBERS = st.integers() | st.integers(-3, 3)


def anything(kind: type) -> st.SearchStrategy[Any]:
    """Values of *kind*, a msgspec struct."""
    return _of(inspect.type_info(kind))


def _of(info: inspect.Type) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one for each type
    match info:
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return NUMBERS
        case inspect.FloatType():
            return st.floats() | st.integers(-1, 1).map(float)
        case inspect.StrType():
            return TEXTS
        case inspect.LiteralType():
            return st.sampled_from(info.values)
        case inspect.UnionType():
            return st.one_of(*map(_of, info.types))
        case inspect.VarTupleType():
            return st.lists(_of(info.item_type), max_size=MOST).map(tuple)
        case inspect.DictType():
            return st.dictionaries(_of(info.key_type), _of(info.value_type), max_size=MOST)
        case inspect.StructType():
            fields = {one.name: _of(one.type) for one in info.fields}
            return st.builds(info.cls, **fields)
        case _:
            raise TypeError(f"no strategy for {info}")


def statuses() -> st.SearchStrategy[Status]:
    """Any status."""
    return anything(Status)
