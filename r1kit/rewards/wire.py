"""What travels between the tests and an answer, each in a process of its own: frames that hold plain values alone.

A value is rebuilt by its reader from text, as one of Python's own classes, so its writer decides what it is but not
what it equals. What is no plain value stays where it is, and travels as a number that names it.
"""

from __future__ import annotations

import builtins
import datetime
import decimal
import fractions
import json
import os
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any

MAX_FRAME_BYTES = 16 << 20
_MAX_ITEMS = 500_000
_LENGTH_BYTES = 4
_MAX_DECIMAL_BITS = 10_000  # beyond, Python refuses to spell an integer in decimal

_TEXT = (type(None), bool, float, str)
_SEQUENCES: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
_MAPPINGS: dict[str, type] = {"Counter": Counter, "OrderedDict": OrderedDict, "dict": dict}
_Built = tuple[type, Callable[[Any], list[Any]], Callable[..., Any]]
_BUILT: dict[str, _Built] = {
    "bytes": (bytes, lambda v: [v.hex()], bytes.fromhex),
    "bytearray": (bytearray, lambda v: [v.hex()], bytearray.fromhex),
    "complex": (complex, lambda v: [v.real, v.imag], complex),
    "range": (range, lambda v: [v.start, v.stop, v.step], range),
    "Decimal": (decimal.Decimal, lambda v: [str(v)], decimal.Decimal),
    "Fraction": (fractions.Fraction, lambda v: [v.numerator, v.denominator], fractions.Fraction),
    "timedelta": (
        datetime.timedelta,
        lambda v: [v.days, v.seconds, v.microseconds],
        datetime.timedelta,
    ),
    "datetime": (
        datetime.datetime,
        lambda v: [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond],
        datetime.datetime,
    ),
    "date": (datetime.date, lambda v: [v.year, v.month, v.day], datetime.date),
    "time": (
        datetime.time,
        lambda v: [v.hour, v.minute, v.second, v.microsecond],
        datetime.time,
    ),
}


class BrokenFrame(Exception):
    """What came is no frame, or none that holds values: its writer has ended, or never meant to speak."""


def write_frame(descriptor: int, content: Any) -> None:
    """Write JSON with its length in front.

    Raises:
        ValueError: more than `MAX_FRAME_BYTES`.
    """
    data = json.dumps(content).encode()
    if len(data) > MAX_FRAME_BYTES:
        raise ValueError("the value is too large")
    data = len(data).to_bytes(_LENGTH_BYTES, "big") + data
    while data:
        data = data[os.write(descriptor, data) :]


def read_frame(descriptor: int) -> Any:
    """The next frame's JSON. Raises BrokenFrame where there is none."""
    size = int.from_bytes(_read(descriptor, _LENGTH_BYTES), "big")
    if size > MAX_FRAME_BYTES:
        raise BrokenFrame("a broken reply")
    try:
        return json.loads(_read(descriptor, size))
    except (ValueError, RecursionError):
        raise BrokenFrame("a broken reply") from None


def _read(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise BrokenFrame("")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def pack(value: Any, refer: Callable[[Any], int]) -> Any:
    """A value as JSON.

    Args:
        refer: the number of a value that is not plain; it may refuse with a TypeError.
    """
    kind = type(value)
    if kind in _TEXT:
        return value
    name = _CLASSES.get(kind) or _inherited(value)
    if name in _SEQUENCES or name in _MAPPINGS:
        return _pack_items(name, value, refer)
    if name in _BUILT and getattr(value, "tzinfo", None) is None:
        return {name: [pack(part, refer) for part in _BUILT[name][1](value)]}
    if isinstance(value, int):
        value = int(value)
        return value if value.bit_length() <= _MAX_DECIMAL_BITS else {"int": f"{value:x}"}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)  # an enumeration spells itself otherwise
    if isinstance(value, type) and vars(builtins).get(value.__name__) is value:
        return {"class": value.__name__}
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        return pack(value.tolist(), refer)  # scalars and arrays
    return {"ref": refer(value)}


def _pack_items(name: str, value: Any, refer: Callable[[Any], int]) -> Any:
    if len(value) > _MAX_ITEMS:
        raise ValueError("the value is too large")
    if name in _MAPPINGS:
        return {name: [[pack(key, refer), pack(item, refer)] for key, item in value.items()]}
    items = [pack(item, refer) for item in value]
    return items if name == "list" else {name: items}


_CLASSES = {
    **{kind: name for name, kind in (_SEQUENCES | _MAPPINGS).items()},
    **{built[0]: name for name, built in _BUILT.items()},
}


def _inherited(value: Any) -> str:
    """The plain class that a value's own class extends, as a named tuple does; empty if there is none."""
    return next((name for kind, name in _CLASSES.items() if isinstance(value, kind)), "")


def unpack(packed: Any, resolve: Callable[[int], Any]) -> Any:
    """The value that was packed.

    Args:
        resolve: the value that a number names; it may refuse with a LookupError.

    Raises:
        BrokenFrame: this was not made by `pack`.
    """
    try:
        return _unpack(packed, resolve)
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError):
        raise BrokenFrame("a broken reply") from None


def _unpack(packed: Any, resolve: Callable[[int], Any]) -> Any:
    if isinstance(packed, list):
        return [_unpack(item, resolve) for item in packed]
    if not isinstance(packed, dict):
        return packed
    ((name, content),) = packed.items()
    if name == "ref":
        return resolve(content)
    if name == "int":
        return int(content, 16)
    if name == "class" and isinstance(found := vars(builtins)[content], type):
        return found
    if name in _SEQUENCES:
        items = [_unpack(item, resolve) for item in content]
        return _set(_SEQUENCES[name], items) if name in ("set", "frozenset") else _SEQUENCES[name](items)
    if name in _MAPPINGS:
        return _MAPPINGS[name]({_unpack(key, resolve): _unpack(item, resolve) for key, item in content})
    return _BUILT[name][2](*[_unpack(part, resolve) for part in content])


def _set(kind: type, items: list[Any]) -> Any:
    """A set gone through as its writer's was, where a copy can be: in another order a wrong program may be right."""
    added, copied = kind(items), kind(set(items) if kind is frozenset else frozenset(items))
    same = len(copied) == len(items) and all(mine is theirs for mine, theirs in zip(copied, items, strict=True))
    return copied if same else added
