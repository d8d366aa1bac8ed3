"""Tells in microseconds that two expressions differ: both are given numbers for their variables, and come out apart.

Only what is read without doubt is read at all: numbers, letters, fractions, roots, whole powers, sums and products,
in tuples, sets, lists and matrices. Expressions that come out alike, or hold anything else, are left to algebra.
"""

from __future__ import annotations

import cmath
import math
import re
from dataclasses import dataclass
from functools import lru_cache

_TOLERANCE = 1e-4
_LARGEST = 1e100
_MAX_POWER = 1000
_MAX_DEPTH = 30

_SPACES = re.compile(r"\\(?:left|right|displaystyle|,|!|;|:|quad|qquad| )(?![A-Za-z])|[\s~]+")
_AND = re.compile(r",?\s*\\(?:text|mbox)\s*\{,?\s*and\s*\},?|,?\s+and\s+(?=[^A-Za-z]|[A-Za-z]\b)")
_GROUPED = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!)(?=[0-9]{3})")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")
_TOKEN = re.compile(
    r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+|\\[dt]?frac|\\sqrt|\\pi|\\cdot|\\times|\\div|\\[{}]|\\\\"
    r"|\\(?:begin|end)\{[bpv]matrix\}|[A-Za-z]|[-+*/^(){}\[\],&]"
)
_OPENING = {"(": ")", "[": "]", "\\{": "\\}"}
_MATRIX = re.compile(r"\\begin\{([bpv])matrix\}")


class _Unread(Exception):
    """Something that is not read here."""


@dataclass(frozen=True)
class _Several:
    """More than one value: a list, a tuple, a set, a matrix."""

    kind: str
    """The brackets around it; `matrix` and its width; empty for a list."""
    items: tuple[complex, ...]


def differ(one: str, other: str) -> bool:
    """Whether two expressions surely have different values. False says nothing."""
    first, second = _values(one), _values(other)
    if first is None or second is None:
        return False
    return any(_apart(a, b) for a, b in zip(first, second, strict=True))


def _apart(one: complex | _Several, other: complex | _Several) -> bool:
    if not isinstance(one, _Several) or not isinstance(other, _Several):
        several = isinstance(one, _Several) or isinstance(other, _Several)
        return several or not _near(one, other)  # pyright: ignore[reportArgumentType]  (neither is several)
    unordered = {one.kind, other.kind} <= {"", "\\{\\}"}
    if len(one.items) != len(other.items):
        return True
    if unordered:
        left = list(other.items)
        for item in one.items:
            match = next((place for place, found in enumerate(left) if _near(item, found)), None)
            if match is None:
                return True
            del left[match]
        return False
    if one.kind != other.kind:
        return False
    return any(not _near(a, b) for a, b in zip(one.items, other.items, strict=True))


def _near(one: complex, other: complex) -> bool:
    return abs(one - other) <= _TOLERANCE * max(1.0, abs(one), abs(other))


@lru_cache(maxsize=4096)
def _values(text: str) -> tuple[complex | _Several, ...] | None:
    """What an expression comes to at two points; None where it cannot be read."""
    text = _AND.sub(",", _GROUPED.sub("", text).replace("\u2212", "-"))
    if text.count(",") and _THOUSANDS.fullmatch(text.strip()):
        text = text.replace(",", "")
    try:
        tokens = _tokens(text)
        return tuple(_Reader(tokens, point).whole() for point in (0.7548776662, 0.5698402910))
    except (_Unread, ArithmeticError, ValueError):
        return None


def _tokens(text: str) -> list[str]:
    text = _SPACES.sub(" ", text)
    tokens, place = [], 0
    while place < len(text):
        if text[place] == " ":
            place += 1
            continue
        match = _TOKEN.match(text, place)
        if not match:
            raise _Unread
        tokens.append(match.group().replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))
        place = match.end()
    return tokens


class _Reader:
    """Reads tokens from left to right; variables take values between 0.3 and 2.3 that depend on the point."""

    def __init__(self, tokens: list[str], point: float) -> None:
        self._tokens = [*tokens, ""]
        self._place = 0
        self._point = point
        self._depth = 0

    @property
    def _next(self) -> str:
        return self._tokens[self._place]

    def _take(self, expected: str = "") -> str:
        word = self._next
        if not word or (expected and word != expected):
            raise _Unread
        self._place += 1
        return word

    def whole(self) -> complex | _Several:
        """All of the tokens."""
        if self._next.startswith("\\begin"):
            value = self._matrix()
        elif self._next in _OPENING and self._closes_at_the_end():
            opening = self._take()
            items = self._list()
            kind = opening + self._take(_OPENING[opening])
            value = items[0] if len(items) == 1 and opening != "\\{" else _Several(kind, items)
        else:
            items = self._list()
            value = items[0] if len(items) == 1 else _Several("", items)
        if self._next:
            raise _Unread
        return value

    def _closes_at_the_end(self) -> bool:
        """Whether the bracket that comes first is closed by the last word."""
        depth, tokens = 0, self._tokens[self._place : -1]
        for place, word in enumerate(tokens):
            depth += (word in _OPENING) - (word in _OPENING.values())
            if depth == 0:
                return place == len(tokens) - 1
        return False

    def _matrix(self) -> _Several:
        name = self._take()
        rows: list[list[complex]] = [[self._sum()]]
        while not self._next.startswith("\\end"):
            if self._take() == "&":
                rows[-1].append(self._sum())
            elif self._tokens[self._place - 1] == "\\\\" and not self._next.startswith("\\end"):
                rows.append([self._sum()])
        self._take(name.replace("begin", "end"))
        if name.endswith("{vmatrix}") or len({len(row) for row in rows}) > 1:
            raise _Unread
        return _Several(f"matrix {len(rows[0])}", tuple(value for row in rows for value in row))

    def _list(self) -> tuple[complex, ...]:
        items = [self._sum()]
        while self._next == ",":
            self._take()
            items.append(self._sum())
        return tuple(items)

    def _sum(self) -> complex:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _Unread
        value = self._signed()
        while self._next in ("+", "-"):
            value = value + self._product() if self._take() == "+" else value - self._product()
        self._depth -= 1
        if abs(value) > _LARGEST:
            raise _Unread
        return value

    def _signed(self) -> complex:
        if self._next in ("+", "-"):
            return -self._product() if self._take() == "-" else self._product()
        return self._product()

    def _product(self) -> complex:
        value, divided = self._power(), False
        while True:
            word = self._next
            if word in ("*", "\\cdot", "\\times", "/", "\\div"):
                divided = divided or word == "/"
                self._take()
                factor = self._power()
                value = value / factor if word in ("/", "\\div") else value * factor
            elif word and (word.isalpha() or word in ("(", "{", "\\frac", "\\sqrt", "\\pi")):
                before = self._tokens[self._place - 1]
                if divided or (word == "\\frac" and before[-1].isdigit()) or (word == "(" and before in "fghFGHPCE"):
                    raise _Unread  # 1/2x, the mixed number 1\frac12, the function f(x)
                value *= self._power()
            else:
                return value

    def _power(self) -> complex:
        base = self._atom()
        if self._next != "^":
            return base
        self._take()
        braced = self._next == "{"
        exponent = self._atom()
        if not braced and self._tokens[self._place - 1].isdigit() and len(self._tokens[self._place - 1]) > 1:
            raise _Unread  # x^10 without braces is x to the 1, times 0, in print
        if self._next == "^" or exponent.imag or abs(exponent) > _MAX_POWER:
            raise _Unread
        if exponent.real != round(exponent.real) and (base.imag or base.real < 0):
            raise _Unread  # which root is meant?
        return base**exponent.real if exponent.real != round(exponent.real) else base ** round(exponent.real)

    def _atom(self) -> complex:
        word = self._take()
        if word[0].isdigit() or word[0] == ".":
            return complex(float(word))
        if word.isalpha():
            return self._letter(word)
        if word == "\\pi":
            return complex(math.pi)
        if word in ("(", "{"):
            value = self._sum()
            self._take({"(": ")", "{": "}"}[word])
            return value
        if word == "\\frac":
            return self._argument() / self._argument()
        if word == "\\sqrt" and self._next != "[":
            value = self._argument()
            if value.imag:
                raise _Unread
            return cmath.sqrt(value)
        raise _Unread

    def _argument(self) -> complex:
        """A group in braces, or a single sign; of several digits only the first would count, so one only."""
        if self._next == "{":
            return self._atom()
        word = self._next
        if word.isdigit() and len(word) > 1:
            self._tokens[self._place : self._place + 1] = [word[0], word[1:]]
        elif not (word.isdigit() or word.isalpha() or word == "\\pi"):
            raise _Unread
        return self._atom()

    def _letter(self, letter: str) -> complex:
        if letter == "i":
            return 1j
        if letter == "e":
            return complex(math.e)
        return complex(0.3 + 2 * ((ord(letter) * self._point) % 1))


def scalar(text: str) -> float | None:
    """The real value of an expression without variables; None where it has some or cannot be read."""
    values = _values(text) if not re.search(r"(?<!\\)\b(?!e\b)[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", text)) else None
    if values is None or isinstance(values[0], _Several) or values[0].imag:
        return None
    return values[0].real
