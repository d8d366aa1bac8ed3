"""Refuses values that decide for themselves what they equal: an object equal to everything would pass any test."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

_OPERATORS = frozenset(
    f"__{name}__"
    for name in (
        "eq", "ne", "lt", "le", "gt", "ge", "add", "radd", "sub", "rsub", "mul", "rmul", "abs", "neg", "bool", "len",
        "contains", "iter", "getitem", "round", "float", "int", "index", "hash", "instancecheck", "getattribute",
        "class",
    )
)  # fmt: skip
_MAX_OBJECTS = 1_000_000
_HEAP_TYPE = 1 << 9


def plain_values(trusted: frozenset[type]) -> Callable[[Any], Any]:
    """A function that hands a value through, or raises TypeError if anything in it brings operators of its own.

    It runs beside code that may exchange the built-ins, so it holds all it uses in its own closure.

    Args:
        trusted: classes written in Python whose operators are honest, besides all those written in C.
    """
    honest, inside = _honesty(trusted), _contents()
    kind, identity, size, error, most = type, id, len, TypeError, _MAX_OBJECTS
    leaves = (str, bytes, int, float, bool, complex, kind(None))

    def plain(value: Any) -> Any:
        waiting, seen = [value], set()
        while waiting:
            item = waiting.pop()
            if kind(item) in leaves or identity(item) in seen:
                continue
            seen.add(identity(item))
            if not honest(kind(item)):
                raise error("the answer returns an object with comparisons of its own")
            if size(seen) > most:
                raise error("the answer returns too many objects")
            waiting.extend(inside(item))
        return value

    return plain


def _honesty(trusted: frozenset[type]) -> Callable[[type], bool]:
    """Whether a class is C's own, trusted, or has its operators from one that is."""
    kind, operators, heap_type, some = type, _OPERATORS, _HEAP_TYPE, any
    attributes = type.__dict__
    mro, flags, namespace = (attributes[name].__get__ for name in ("__mro__", "__flags__", "__dict__"))

    def honest(cls: type) -> bool:
        if not flags(cls) & heap_type:
            return True
        if kind(cls) is not kind:
            return False  # a metaclass of its own may lie about anything below
        own = [base for base in mro(cls) if flags(base) & heap_type and base not in trusted]
        return not some(operators & namespace(base).keys() for base in own)

    return honest


def _contents() -> Callable[[Any], Iterator[Any]]:
    """What a container holds, read past any method that its class overrides."""
    pairs, chained, is_a = dict.items, chain.from_iterable, isinstance
    readers: tuple[tuple[type, Callable[[Any], Iterator[Any]]], ...] = (
        (list, list.__iter__),
        (tuple, tuple.__iter__),
        (set, set.__iter__),
        (frozenset, frozenset.__iter__),
        (dict, lambda value: chained(pairs(value))),
    )

    def inside(item: Any) -> Iterator[Any]:
        for base, read in readers:
            if is_a(item, base):
                yield from read(item)  # pyright: ignore[reportArgumentType]  (each reader fits its base)

    return inside
