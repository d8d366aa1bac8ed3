"""Exact numbers as answers write them: decimals, fractions, mixed numbers, per cent, with a unit or without."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_MAX_DIGITS = 60
_MAX_EXPONENT = 60

_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)"
_SIGN = r"[+-]? ?"
_RATIO = (
    rf"(?P<above>{_SIGN}{_DECIMAL}) ?/ ?(?P<below>{_DECIMAL})"
    rf"|\\frac ?(?:\{{ ?(?P<top>{_SIGN}{_DECIMAL}) ?\}}|(?P<digit>[0-9])) ?"
    rf"(?:\{{ ?(?P<bottom>{_DECIMAL}) ?\}}|(?P<last>[0-9]))"
)
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})(?:(?:(?P<whole>[0-9]+) ?(?=\\frac| [0-9]+/))?(?: ?(?:{_RATIO}))"
    rf"|(?P<decimal>{_DECIMAL})"
    rf"(?: ?(?:\\times|\\cdot|×|x|\*) ?10 ?\^ ?(?:\{{ ?(?P<power>-?[0-9]+) ?\}}|(?P<single>[0-9])))?)"
)
_SPACES = re.compile(r"\\[!,;: ]|\\(?:left|right|quad|displaystyle)\b|~|\s+")
_JOINED = re.compile(r"(?<=[0-9]),\s*\\!\s*(?=[0-9]{3})|\{,\}")
_IGNORED = re.compile(r"\^ ?\{? ?\\circ ?\}?|°|[£€¥]")
_PERCENT = re.compile(r" ?(?:\\?%|\b(?:percent|per cent)\b)$", re.IGNORECASE)
_DOLLAR = re.compile(r"^([+-]?) ?(?:\\\$|\$) ?(?!.*\$)")
_MATH = re.compile(r"^\$([^$]*)\$$|^\\\((.*)\\\)$|^\\\[(.*)\\\]$", re.DOTALL)
_UNIT = re.compile(
    r"(?:\\(?:text|mbox|mathrm|textrm) ?\{([^{}]*)\}"
    r"|((?: ?\b[A-Za-z]{2,}\b\.?){1,3}|(?<=[0-9}] )[gmslh])|([\u4e00-\u9fff]{1,4}))"
    r" ?(\^ ?\{? ?[23] ?\}?|[²³])?\.?$"
)
_SCALE = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|half|halves|thirds?|quarters?|fourths?|fifths?|"
    r"times|and|to|plus|minus|over|pi|sqrt|sin|cos|tan|log|ln|exp|mod|or|not)\b|[万亿千百十半之又和或]|\$",
    re.IGNORECASE,
)
_UNITS: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(factor))
    for dimension, factor, names in (
        ("length", "0.001", "mm millimeter millimetre"), ("length", "0.01", "cm centimeter centimetre"),
        ("length", "1", "m meter metre"), ("length", "1000", "km kilometer kilometre"),
        ("length", "0.0254", "in inch inche"), ("length", "0.3048", "ft foot feet"), ("length", "0.9144", "yd yard"),
        ("length", "1609.344", "mi mile"), ("mass", "0.001", "mg milligram"), ("mass", "1", "g gm gram"),
        ("mass", "1000", "kg kilogram"), ("time", "1", "s sec second"), ("time", "60", "min minute"),
        ("time", "3600", "h hr hour"), ("time", "86400", "day"), ("time", "604800", "week"),
        ("money", "1", "dollar usd"), ("money", "0.01", "cent"), ("volume", "1", "l liter litre"),
        ("volume", "0.001", "ml milliliter millilitre"),
    )
    for name in names.split()
}  # fmt: skip
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_AFTER = {"squared": 2, "cubed": 3}


@dataclass(frozen=True)
class Unit:
    """A unit of measure that is known here."""

    dimension: str
    factor: Fraction
    """How many of the dimension's base unit one of these is."""


@dataclass(frozen=True)
class Quantity:
    """A rational number, with what stands behind it."""

    value: Fraction
    percent: bool = False
    unit: Unit | None = None
    """None where there is none, or one that is not known here."""


def same(one: Quantity, other: Quantity) -> bool:
    """Whether two quantities are equal.

    18 % is 0.18, and also the 18 of a question for the per cent. Units count where both are known; a number without
    one is taken to be in the other's.
    """
    if one.unit and other.unit:
        if one.unit.dimension != other.unit.dimension:
            return False
        return one.value * one.unit.factor == other.value * other.unit.factor
    if one.value == other.value:
        return True
    if one.percent != other.percent:
        share, number = (one, other) if one.percent else (other, one)
        return share.value / 100 == number.value
    return False


@lru_cache(maxsize=4096)
def quantity(text: str) -> Quantity | None:
    """The number that a text is; None where it is anything else. Time is linear in the text's length."""
    text = _SPACES.sub(" ", _JOINED.sub(",", unwrapped(text))).strip()
    text = text.replace("\u2212", "-").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = _IGNORED.sub("", text).strip().rstrip(".").strip()
    percent = bool(match := _PERCENT.search(text))
    text = text[: match.start()] if match else text
    text, unit = split_unit(text)
    match = _NUMBER.fullmatch(text)
    value = _value(match) if match else None
    return None if value is None else Quantity(value, percent, unit)


def unwrapped(text: str) -> str:
    """A text without what only sets it off: stars, one box, signs for mathematics around all of it."""
    text = text.strip()
    if len(text) > 4 and text.startswith("**") and text.endswith("**"):
        text = text[2:-2].strip()
    if match := _MATH.match(text):
        text = next(group for group in match.groups() if group is not None).strip()
    if text.startswith("\\boxed{") and text.endswith("}"):
        text = text[len("\\boxed{") : -1].strip()
    return text


def split_unit(text: str, known: bool = False) -> tuple[str, Unit | None]:
    """A text without the unit at its end, and the unit where it is known here.

    Args:
        known: take bare words for a unit only where it is one that is known; else any words.
    """
    if match := _DOLLAR.match(text):
        return split_unit(match[1] + text[match.end() :])[0], Unit(*_UNITS["dollar"])
    match = _UNIT.search(text)
    if not match or not match.start() or _SCALE.search(match.group()):
        return text, None
    words = next(group for group in match.groups()[:3] if group is not None)
    unit = _unit(words, match[4] or "")
    if known and unit is None and match[1] is None:
        return text, None
    return text[: match.start()].strip(), unit


def _unit(words: str, power: str) -> Unit | None:
    names = words.lower().replace(".", " ").split()
    exponent = next((int(digit) for digit in "23" if digit in power), {"²": 2, "³": 3}.get(power, 1))
    if names and names[0] in _POWERS:
        exponent, names = _POWERS[names[0]], names[1:]
    elif names and names[-1] in _AFTER:
        exponent, names = _AFTER[names[-1]], names[:-1]
    if len(names) != 1:
        return None
    known = _UNITS.get(names[0]) or _UNITS.get(names[0].removesuffix("s"))
    return Unit(f"{known[0]}^{exponent}" if exponent > 1 else known[0], known[1] ** exponent) if known else None


def _value(match: re.Match[str]) -> Fraction | None:
    parts = {name: _plain(text) for name, text in match.groupdict().items() if text}
    if sum(map(len, parts.values())) > 2 * _MAX_DIGITS:
        return None
    if "decimal" in parts:
        exponent = int(parts.get("power") or parts.get("single") or 0)
        if abs(exponent) > _MAX_EXPONENT:
            return None
        value = Fraction(parts["decimal"]) * Fraction(10) ** exponent
    else:
        above, below = (next(parts[n] for n in names if n in parts) for names in _ENDS)
        if not Fraction(below):
            return None
        value = Fraction(above) / Fraction(below) + Fraction(parts.get("whole", "0"))
    return -value if parts.get("sign") == "-" else value


_ENDS = (("above", "top", "digit"), ("below", "bottom", "last"))


def _plain(number: str) -> str:
    text = number.replace(",", "").replace(" ", "")
    return text + "0" if text.endswith(".") else text
